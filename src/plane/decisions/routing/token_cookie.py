"""May a request be routed by the cookie that holds its token? The backend never sees that cookie.

A backend with `subdomain` and `token_in_cookie` is reached without its token in the path: the first visit sets a
cookie, and later requests are routed by it. Threats and choices: `docs/decisions/0015-token-in-cookie.md`.
`plane.decisions.http.request_head` reads the cookie, and `plane.proxy.data_plane.dispatch` routes by it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from plane.decisions.routing.absolute_path import is_issued_token
from plane.decisions.routing.host_names import normal_host

__all__ = ["COOKIE_MARKER", "TokenCookie", "extract_token_cookie", "redirect_target", "set_cookie_field"]

PLAIN_NAME: Final = b"plane-token"
# Browsers accept this one only over TLS, host-only and with `Path=/`: no sibling subdomain can set it.
SECURE_NAME: Final = b"__Host-plane-token"
# Part of every head that has the cookie: a cheap test for all others.
COOKIE_MARKER: Final = b"plane-token="

_COOKIE: Final = re.compile(rb"\r\ncookie:[ \t]*([^\r\n]*)", re.IGNORECASE)
_SOURCE: Final = re.compile(rb"\r\n(origin|sec-fetch-(?:site|mode|dest)):[ \t]*([^\r\n]*)", re.IGNORECASE)
_SAFE: Final = frozenset((b"GET", b"HEAD"))


@dataclass(slots=True, frozen=True)
class TokenCookie:
    """The token cookies of a request, and its fields about the page that caused it.

    Attributes:
        plain, secure: the token in the cookie of each name. None: there is no such cookie, or there are several with
            different values, of which a sibling subdomain may have set one.
        site, mode, dest: fetch metadata (`Sec-Fetch-…`), empty where the browser sends none.
        origin: the field's value, None without one.
    """

    plain: str | None
    secure: str | None
    site: bytes = b""
    mode: bytes = b""
    dest: bytes = b""
    origin: bytes | None = None

    def token(self, *, over_tls: bool) -> str | None:
        """Return the token to route by. Over TLS, only the cookie counts that no sibling can set."""
        return self.secure if over_tls else self.plain

    def may_be_used(self, method: bytes, authority: bytes, *, upgrade: bool, over_tls: bool) -> bool:
        """Return whether the request comes from the session's own pages or from a person who opens one.

        Sibling subdomains are the same site, so `SameSite` does not exclude their requests. Requests of another origin
        are refused, except top-level navigations that only read.
        """
        if self.site:
            if self.site in (b"same-origin", b"none"):
                return True
            return not upgrade and method in _SAFE and self.mode == b"navigate" and self.dest == b"document"
        if self.origin is None:
            return True
        scheme, separator, host = self.origin.lower().partition(b"://")
        allowed = (b"https",) if over_tls else (b"http", b"https")
        return bool(separator) and scheme in allowed and normal_host(host) == normal_host(authority)


def extract_token_cookie(lines: bytes) -> tuple[bytes, TokenCookie]:
    """Return field lines, each begun by CR LF, without the token cookies, and these."""
    values: dict[bytes, set[bytes]] = {PLAIN_NAME: set(), SECURE_NAME: set()}

    def without_own(line: re.Match[bytes]) -> bytes:
        kept = []
        for pair in line[1].split(b";"):
            name, _, value = pair.strip(b" \t").partition(b"=")
            if name in values:
                values[name].add(value)
            elif name or value:
                kept.append(pair.strip(b" \t"))
        return b"\r\nCookie: " + b"; ".join(kept) if kept else b""

    others = _COOKIE.sub(without_own, lines)
    source = {found[1].lower(): found[2].strip(b" \t") for found in _SOURCE.finditer(lines)}
    return others, TokenCookie(
        plain=_only_token(values[PLAIN_NAME]),
        secure=_only_token(values[SECURE_NAME]),
        site=source.get(b"sec-fetch-site", b"").lower(),
        mode=source.get(b"sec-fetch-mode", b"").lower(),
        dest=source.get(b"sec-fetch-dest", b"").lower(),
        origin=source.get(b"origin"),
    )


def _only_token(values: set[bytes]) -> str | None:
    if len(values) != 1:
        return None
    token = next(iter(values)).decode("latin-1")
    return token if is_issued_token(token) else None


def set_cookie_field(token: str, *, over_tls: bool) -> bytes:
    """Return the line, begun by CR LF, that stores the token on this host alone until the browser closes.

    `Lax`: the first visit comes from the application's site, and `Strict` would keep the cookie out of the redirect.
    """
    name, secure = (SECURE_NAME, b"; Secure") if over_tls else (PLAIN_NAME, b"")
    return b"\r\nSet-Cookie: " + name + b"=" + token.encode() + b"; Path=/; HttpOnly; SameSite=Lax" + secure


def redirect_target(target: bytes, token: str) -> bytes:
    """Return the path and query below the token, as a `Location` that stays on this host.

    Browsers take `//host` and `/\\host` for an address of another host; `/.//host` is the same path as `//host`.
    """
    rest = target[len(token) + 1 :]
    if not rest.startswith(b"/"):
        rest = b"/" + rest
    return b"/." + rest if rest[1:2] in (b"/", b"\\") else rest
