"""The one tree of errors of the package, and the error body of the HTTP API.

An error carries its data as attributes; its text says what happened and, where somebody can do
something about it, what.
"""

from __future__ import annotations

import enum

import msgspec

__all__ = [
    "ApiError",
    "ApiErrorKind",
    "ApiFailure",
    "ConfigurationError",
    "InvalidCharacter",
    "InvalidClusterName",
    "InvalidName",
    "MessageError",
    "NameTooLong",
    "PlaneError",
    "WrongPrefix",
]


class PlaneError(Exception):
    """Base of every error that Plane raises on purpose."""


class ConfigurationError(PlaneError):
    """A program cannot start as it was configured. The text tells the operator what to change."""


class MessageError(PlaneError):
    """Bytes that are not the message they should be.

    Attributes:
        path: where in the document, as ``$.spawn_config.executable``; ``$`` for the whole.
        reason: what is wrong there.
        is_json: False when the bytes are not even JSON.
    """

    def __init__(self, reason: str, path: str = "$", *, is_json: bool = True) -> None:
        super().__init__(f"{reason} - at {path}")
        self.reason = reason
        self.path = path
        self.is_json = is_json


class InvalidName(PlaneError):
    """A name that breaks the rules of page 2, "Names". ``name`` is the offender."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class WrongPrefix(InvalidName):
    """The name does not start with ``{expected}-``."""

    def __init__(self, name: str, expected: str) -> None:
        super().__init__(name, f"name {name!r} must start with '{expected}-'")
        self.expected = expected


class InvalidCharacter(InvalidName):
    """``character`` at ``position`` (from 0) is not one of a-z, 0-9 and -."""

    def __init__(self, name: str, character: str, position: int) -> None:
        super().__init__(
            name,
            f"name {name!r} has the invalid character {character!r} at position {position}; "
            "only a-z, 0-9 and - are allowed",
        )
        self.character = character
        self.position = position


class NameTooLong(InvalidName):
    """The name has more than ``limit`` characters."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name[:80], f"name of {len(name)} characters is too long; at most {limit} are allowed")
        self.length = len(name)
        self.limit = limit


class InvalidClusterName(InvalidName):
    """A cluster name that is not ``host`` or ``host:port``."""


class ApiErrorKind(enum.StrEnum):
    """What went wrong, for programs. Values are the original's."""

    FAILED_TO_ACQUIRE_KEY = "FailedToAcquireKey"
    KEY_UNHELD_NO_SPAWN_CONFIG = "KeyUnheldNoSpawnConfig"
    # Page 2 names it and page 3 has no case of it: a held key is live, whatever its backend's or drone's state, or it
    # is expired and free for the next. Never said here; kept since clients may hear it from a controller of 0.5.5.
    KEY_HELD_UNHEALTHY = "KeyHeldUnhealthy"
    KEY_HELD = "KeyHeld"
    NO_DRONE_AVAILABLE = "NoDroneAvailable"
    FAILED_TO_REMOVE_KEY = "FailedToRemoveKey"
    DATABASE_ERROR = "DatabaseError"
    NO_CLUSTER_PROVIDED = "NoClusterProvided"
    NOT_FOUND = "NotFound"
    INVALID_CLUSTER_NAME = "InvalidClusterName"
    OTHER = "Other"


class ApiError(msgspec.Struct, frozen=True):
    """Body of every error answer of the HTTP API.

    ``id`` is random and stands in the controller's log too.
    """

    id: str
    kind: ApiErrorKind
    message: str


class ApiFailure(PlaneError):
    """A request that the controller answers with an error: HTTP status, kind and message.

    ``retry_after_s``: the same request may succeed after so many seconds; None: nobody can say.
    """

    def __init__(self, status: int, kind: ApiErrorKind, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status
        self.kind = kind
        self.message = message
