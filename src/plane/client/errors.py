"""What may go wrong when an application asks a controller: one branch of the tree in `plane.protocol.errors`."""

from __future__ import annotations

from plane.protocol.backend_state import BackendStatusStreamEntry
from plane.protocol.errors import ApiErrorKind, PlaneError

__all__ = ["BackendEnded", "CallFailed", "CallRefused", "ControllerUnreachable", "UnexpectedResponse"]


class CallFailed(PlaneError):
    """Base of what calls of the client raise."""


class ControllerUnreachable(CallFailed):
    """No answer came, also not to the repetitions that were safe.

    Attributes:
        sent: whether the controller may have done what it was asked for.
    """

    def __init__(self, url: str, reason: str, *, sent: bool) -> None:
        said = "; it may have been done all the same" if sent else ""
        super().__init__(f"controller at {url} does not answer: {reason}{said}")
        self.url = url
        self.reason = reason
        self.sent = sent


class CallRefused(CallFailed):
    """The controller answered with an error.

    Attributes:
        status: of HTTP.
        kind: what went wrong, for programs; `ApiErrorKind.OTHER` where the answer is no ApiError.
        message: the same for people.
        error_id: stands in the controller's log too; None where the answer is no ApiError.
    """

    def __init__(self, status: int, kind: ApiErrorKind, message: str, error_id: str | None) -> None:
        tail = f", error id {error_id}" if error_id else ""
        super().__init__(f"{message} (HTTP status {status}{tail})")
        self.status = status
        self.kind = kind
        self.message = message
        self.error_id = error_id


class UnexpectedResponse(CallFailed):
    """The answer is none of a controller: another server's, or of a version that is not understood."""


class BackendEnded(CallFailed):
    """The backend was waited for, and ended. ``entry`` is its last state."""

    def __init__(self, backend: str, entry: BackendStatusStreamEntry) -> None:
        why = f": {entry.message}" if isinstance(entry.message, str) else ""
        super().__init__(f"backend {backend} is {entry.status}{why}")
        self.backend = backend
        self.entry = entry
