"""Responses of the proxy's own: errors as pages or JSON, the redirect of ``/``, and ``/ready``.

Like every response they have ``server`` and CORS fields; see `docs/reference/protocol/proxy.md`. Those that repeat are
rendered once.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from plane.decisions.http.error_format import ErrorFormat
from plane.decisions.http.response_head import CORS_FIELDS
from plane.protocol import codec
from plane.proxy.data_plane.error_pages import error_page, waiting_page
from plane.version import this_version

__all__ = ["OwnResponses", "server_field"]

# What happened, and what a person can do about it.
_TEXTS: Final = {
    400: ("bad request", "The address or the request is malformed."),
    403: ("this address does not belong to that session", "Open the session from the application again."),
    408: ("request not complete in time", "Try again; the connection may be slow."),
    410: ("this session has ended", "Open it from the application again."),
    413: ("request too large", "Send less at once."),
    414: ("address too long", "Use a shorter address."),
    431: ("header too large", "Clear this site's cookies and try again."),
    501: ("not implemented", "This kind of request is not served."),
    502: ("the session's process did not respond", "It may be restarting. Try again in a moment."),
    503: (
        "cannot tell where this session runs",
        "The service has been without a controller for too long. Try again in a moment.",
    ),
    504: ("no response in time", "The session takes long to start. Try again in a moment."),
    505: ("HTTP version not supported", "Only HTTP/1.1 and HTTP/1.0 are spoken."),
}
_ABSOLUTE_PATH: Final = (
    "the application used an absolute path",
    "This address does not begin with the token of a session. The application must be told the path below which it "
    "runs, or get a subdomain of its own. Plane's documentation says how, in docs/how-to/applications.",
)
_OTHER_ORIGIN: Final = ("another site caused this request", "Open the session from the application again.")
_HTML: Final = b"text/html; charset=utf-8"
_JSON: Final = b"application/json"
_NO_STORE: Final = b"\r\nCache-Control: no-store"
_TEXT: Final = b"text/plain; charset=utf-8"


def server_field() -> bytes:
    """Return the line ``\\r\\nserver: Plane/{version}-{hash}``."""
    version = this_version()
    return f"\r\nserver: Plane/{version.version}-{version.git_hash}".encode()


class OwnResponses:
    """Renders responses.

    Args:
        server: the line of `server_field`.
        root_redirect_url: the target of ``/``. None: 400.
    """

    def __init__(self, server: bytes, root_redirect_url: str | None) -> None:
        self._server = server
        self._root_redirect_url = root_redirect_url
        self._statuses: dict[tuple[int, ErrorFormat, bool], bytes] = {}
        self._absolute_paths: dict[tuple[int, ErrorFormat, bool], bytes] = {}

    def of_status(self, status: int, form: ErrorFormat, *, close: bool) -> bytes:
        """Return a response that explains ``status``."""
        known = self._statuses.get((status, form, close))
        if known is None:
            kind, body = _body_of(status, form)
            more = b"\r\nRetry-After: 5" if status == 503 else b""
            known = self._statuses[status, form, close] = self._render(status, kind, body, close, more)
        return known

    @property
    def redirects_root(self) -> bool:
        """Whether ``/`` redirects."""
        return self._root_redirect_url is not None

    def of_root(self, form: ErrorFormat, *, close: bool, own_host: bool) -> bytes:
        """Return the response to a request for ``/``.

        ``own_host``: for the cluster's own name, and not for a subdomain. There the next visit to the same address may
        be an application's, so a browser must not keep the redirect.
        """
        if self._root_redirect_url is None:
            return self.of_status(400, form, close=close)
        return self.redirect(self._root_redirect_url, close=close, more=b"" if own_host else _NO_STORE)

    def redirect(self, location: str, *, close: bool, more: bytes = b"") -> bytes:
        """Return a permanent redirect to ``location``."""
        return self._render(301, _TEXT, b"", close, f"\r\nLocation: {location}".encode("latin-1") + more)

    def first_visit(self, location: bytes, cookie_field: bytes, *, close: bool) -> bytes:
        """Return a redirect to ``location`` that stores a cookie; ``cookie_field`` is its line, begun by CR LF."""
        more = b"\r\nLocation: " + location + b"\r\nReferrer-Policy: no-referrer" + cookie_field
        return self._render(302, _TEXT, b"", close, more)

    def absolute_path(self, status: int, form: ErrorFormat, *, close: bool) -> bytes:
        """Return the response for a path of an application that does not know below which path it is served."""
        known = self._absolute_paths.get((status, form, close))
        if known is None:
            title, text = _ABSOLUTE_PATH
            members = {"documentation": "docs/how-to/applications"}
            known = self._absolute_paths[status, form, close] = self._error(status, form, title, text, members, close)
        return known

    def wrong_host(self, host: str, expected: str, form: ErrorFormat, *, close: bool) -> bytes:
        """Return the response for a host under which the session, or any session, is not served."""
        title, text = _TEXTS[403]
        text = f"This request is for {host}. The right address begins with {expected}. {text}"
        return self._error(403, form, title, text, {"host": host, "expected": expected}, close)

    def other_origin(self, form: ErrorFormat, *, close: bool) -> bytes:
        """Return the response to a request with the session's cookie that a page of another origin caused."""
        return self._error(403, form, *_OTHER_ORIGIN, {}, close)

    def _error(
        self, status: int, form: ErrorFormat, title: str, text: str, members: dict[str, str], close: bool
    ) -> bytes:
        if form is ErrorFormat.PAGE:
            return self._render(status, _HTML, error_page(title[0].upper() + title[1:], text), close)
        body = codec.encode({"status": status, "error": title, **members}) + b"\n"
        return self._render(status, _JSON, body, close)

    def ready(self, missing: set[str], *, close: bool) -> bytes:
        """Return the response to ``/ready``: 200, or 503 with what is ``missing``, in words."""
        text = ", ".join(sorted(missing)) or "ok"
        return self._render(503 if missing else 200, _TEXT, f"{text}\n".encode(), close)

    def waiting(self, *, close: bool) -> bytes:
        """Return a page that waits for a backend to start."""
        return self._render(503, _HTML, waiting_page(), close, b"\r\nRetry-After: 2")

    def _render(self, status: int, kind: bytes, body: bytes, close: bool, more: bytes = b"") -> bytes:
        fields = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode(), self._server, CORS_FIELDS, more]
        if body:
            fields.append(b"\r\nContent-Type: " + kind)
        if status != 301:
            # It describes this moment.
            fields.append(_NO_STORE)
        if close:
            fields.append(b"\r\nConnection: close")
        return b"".join((*fields, b"\r\nContent-Length: %d\r\n\r\n" % len(body), body))


def _body_of(status: int, form: ErrorFormat) -> tuple[bytes, bytes]:
    """Return the type and the bytes of a body."""
    title, text = _TEXTS[status]
    if form is ErrorFormat.PAGE:
        return _HTML, error_page(title[0].upper() + title[1:], text)
    # In JSON, 410 has no body, as in Plane 0.5.5. Programs recognize it by its status.
    return _JSON, b"" if status == 410 else codec.encode({"status": status, "error": title}) + b"\n"
