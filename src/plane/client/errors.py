"""Failures of the client's calls: a branch of the tree in `plane.protocol.errors`."""

from __future__ import annotations

from plane.protocol.backend_state import BackendStatusStreamEntry
from plane.protocol.errors import ApiErrorKind, PlaneError

__all__ = ["BackendEnded", "CallFailed", "CallRefused", "ControllerUnreachable", "UnexpectedResponse"]


class CallFailed(PlaneError):
    """Base of the errors that calls raise."""


class ControllerUnreachable(CallFailed):
    """There was no response, nor to the retries that were safe.

    Attributes:
        sent: whether the controller may have carried out the call.
    """

    def __init__(self, url: str, reason: str, *, sent: bool) -> None:
        effect = "; the call may have taken effect" if sent else ""
        super().__init__(f"controller at {url} does not respond: {reason}{effect}")
        self.url = url
        self.reason = reason
        self.sent = sent


class CallRefused(CallFailed):
    """The controller responded with an error.

    Attributes:
        status: the HTTP status.
        kind: the kind of the failure, for programs; `ApiErrorKind.OTHER` if the response is not an ApiError.
        message: the failure, for people.
        error_id: also in the controller's log; None if the response is not an ApiError.
        cursor: where a reader of the event feed can continue, if the status is 410.
    """

    def __init__(
        self, status: int, kind: ApiErrorKind, message: str, error_id: str | None, cursor: int | None = None
    ) -> None:
        tail = f", error id {error_id}" if error_id else ""
        super().__init__(f"{message} (HTTP status {status}{tail})")
        self.status = status
        self.kind = kind
        self.message = message
        self.error_id = error_id
        self.cursor = cursor


class UnexpectedResponse(CallFailed):
    """The response is not from a controller, or from one of an incompatible version."""


class BackendEnded(CallFailed):
    """The backend ended before it was ready. ``entry`` is its last state."""

    def __init__(self, backend: str, entry: BackendStatusStreamEntry) -> None:
        reason = f": {entry.message}" if isinstance(entry.message, str) else ""
        super().__init__(f"backend {backend} is {entry.status}{reason}")
        self.backend = backend
        self.entry = entry
