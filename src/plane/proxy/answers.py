"""Answers of the proxy's own, written once: errors, the redirect of ``/``, ``/ready``.

They carry ``server`` and CORS as every answer does (page 5).
"""

from __future__ import annotations

from http import HTTPStatus

from plane.decisions.answer_head import CORS_FIELDS
from plane.version import this_version

__all__ = ["own_answer", "server_field"]

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


def own_answer(status: int, server: bytes, *, close: bool, location: str | None = None) -> bytes:
    """A whole answer. ``close``: the connection ends after it."""
    text = _TEXTS.get(status, "ok" if status == 200 else "").encode()
    body = text + b"\n" if text else b""
    fields = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode(), server, CORS_FIELDS]
    fields.append(f"\r\nContent-Length: {len(body)}".encode())
    if body:
        fields.append(b"\r\nContent-Type: text/plain; charset=utf-8")
    if location is not None:
        fields.append(f"\r\nLocation: {location}".encode())
    if close:
        fields.append(b"\r\nConnection: close")
    return b"".join((*fields, b"\r\n\r\n", body))
