"""Answers of the proxy's own, written once: errors, the redirect of ``/``, ``/ready``.

They carry ``server`` and CORS as every answer does (page 5).
"""

from __future__ import annotations

from http import HTTPStatus

from plane.decisions.answer_head import CORS_FIELDS
from plane.version import this_version

__all__ = ["OwnAnswers", "server_field"]

# What people read; 410 has no body.
_TEXTS = {
    400: "bad request",
    403: "this address does not belong to that session",
    408: "request not complete in time",
    413: "request too large",
    414: "address too long",
    431: "header too large",
    501: "not implemented",
    502: "the session's process did not answer",
    503: "not connected to a controller",
    504: "no answer in time",
    505: "HTTP version not supported",
}


def server_field() -> bytes:
    """The line ``\\r\\nserver: Plane/{version}-{hash}``."""
    version = this_version()
    return f"\r\nserver: Plane/{version.version}-{version.git_hash}".encode()


def _own_answer(
    status: int, server: bytes, *, close: bool, location: str | None = None, text: str | None = None
) -> bytes:
    """A whole answer. ``close``: the connection ends after it."""
    if text is None:
        text = _TEXTS.get(status, "ok" if status == 200 else "")
    body = f"{text}\n".encode() if text else b""
    fields = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode(), server, CORS_FIELDS]
    fields.append(f"\r\nContent-Length: {len(body)}".encode())
    if body:
        fields.append(b"\r\nContent-Type: text/plain; charset=utf-8")
    if location is not None:
        fields.append(f"\r\nLocation: {location}".encode())
    if close:
        fields.append(b"\r\nConnection: close")
    return b"".join((*fields, b"\r\n\r\n", body))


class OwnAnswers:
    """All of them, each written once.

    Args:
        root_redirect_url: where ``/`` leads. None: 400.
    """

    def __init__(self, server: bytes, root_redirect_url: str | None) -> None:
        self._server = server
        self._root_redirect_url = root_redirect_url
        self._written: dict[tuple[int, bool], bytes] = {}

    def of_status(self, status: int, *, close: bool) -> bytes:
        """An answer that says no more than its status does."""
        known = self._written.get((status, close))
        if known is None:
            known = self._written[status, close] = _own_answer(status, self._server, close=close)
        return known

    def of_root(self, *, close: bool) -> bytes:
        """To a request for ``/``."""
        if self._root_redirect_url is None:
            return self.of_status(400, close=close)
        return self.redirect(self._root_redirect_url, close=close)

    def redirect(self, location: str, *, close: bool) -> bytes:
        """To ``location``, for good."""
        return _own_answer(301, self._server, close=close, location=location)

    def not_ready(self, why: str, *, close: bool) -> bytes:
        """To a request for ``/ready`` while something is missing."""
        return _own_answer(503, self._server, close=close, text=why)
