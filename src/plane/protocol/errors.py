"""The tree of errors of the package, and the error body of the HTTP API.

An error has its data as attributes. Its text says what is wrong and, where somebody can correct it, what to do. Errors
are defined where they are raised; ``tests/unit/protocol/test_errors.py`` compares this tree with all of them::

    PlaneError
        AmbiguousPath
        ApiFailure
        BackendExists
        BackendFailed
            EngineRefused
            StartupTimedOut
        CallFailed
            BackendEnded
            CallRefused
            ControllerUnreachable
            UnexpectedResponse
        ConfigurationError
        DatabaseUnavailable
            RowLocked
        DeadlinesNotEnforced
        EventTooLarge
        FileSystemHangs
        InvalidCertificate
        InvalidName
            InvalidCharacter
            InvalidClusterName
            NameTooLong
            WrongPrefix
        InvalidResponse
        LogsUnavailable
            LogsNotRetained
        MalformedChunks
        MalformedProxyHeader
        MessageError
        MessageNotDelivered
        MountRefused
        NodeRefused
        OrderFailed
        Overflowed
        ReferencedRowDeleted
        RequestLost
        RequestRefused
        SocketClosed
        StoreUnwritable
        UnknownBackend
        Unstorable
"""

from __future__ import annotations

import enum

import msgspec
from msgspec import UNSET, UnsetType

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
    """Base of all errors that Plane defines."""


class ConfigurationError(PlaneError):
    """A program cannot start with its configuration. The text describes what the operator must change."""


class MessageError(PlaneError):
    """A message that cannot be decoded.

    Attributes:
        path: the place in the document, for example ``$.spawn_config.executable``; ``$`` is the whole.
        reason: what is wrong there.
        is_json: False if the bytes are not JSON.
    """

    def __init__(self, reason: str, path: str = "$", *, is_json: bool = True) -> None:
        # What is not JSON has no fields.
        super().__init__(f"{reason} - at {path}" if is_json else reason)
        self.reason = reason
        self.path = path
        self.is_json = is_json


class InvalidName(PlaneError):
    """A name that violates the rules of `plane.protocol.names`."""

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
    """The kind of a failure, for programs. The values are those of Plane 0.5.5."""

    FAILED_TO_ACQUIRE_KEY = "FailedToAcquireKey"
    KEY_UNHELD_NO_SPAWN_CONFIG = "KeyUnheldNoSpawnConfig"
    # Never sent by this controller, since a held key is either live or free for the next holder. It is defined because
    # clients may receive it from a controller of Plane 0.5.5.
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
    """Body of every error response of the HTTP API. ``id`` is random, and is logged by the controller too.

    ``cursor``: where a reader of the event feed can continue, if the response is 410.
    """

    id: str
    kind: ApiErrorKind
    message: str
    cursor: int | UnsetType = UNSET


class ApiFailure(PlaneError):
    """A request that fails with an `ApiError`: HTTP status, kind and message.

    ``retry_after_s``: the same request may succeed after this time; None: unknown. ``cursor``: see `ApiError`.
    """

    def __init__(
        self,
        status: int,
        kind: ApiErrorKind,
        message: str,
        *,
        retry_after_s: int | None = None,
        cursor: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.cursor = cursor
        self.status = status
        self.kind = kind
        self.message = message
