"""Who may call the control API? Roles of API keys, what each may do, and the file that names the keys.

`plane.controller.api.auth` asks, for every request; page 7 B, "API keys". A key is random and long, so a plain
SHA-256 of it cannot be turned back; the file never holds the key itself.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from plane.protocol.errors import ConfigurationError

__all__ = ["ApiKey", "ApiKeys", "Role", "bearer_token", "entry_of", "headers_to_forward", "parse_api_keys"]


class Role(enum.StrEnum):
    """What the bearer of a key may do.

    ``ADMIN``: everything. ``CONNECT``: what an application needs: connect, end backends, revoke tokens, and all that
    ``READ`` may: read states, logs and metrics. ``NODE``: be a drone, a proxy or a DNS server, and nothing else.
    """

    ADMIN = "admin"
    CONNECT = "connect"
    READ = "read"
    NODE = "node"

    def may(self, needed: Role) -> bool:
        """Whether this role includes ``needed``."""
        return needed in _INCLUDED[self]


_INCLUDED = {
    Role.ADMIN: frozenset(Role),
    Role.CONNECT: frozenset({Role.CONNECT, Role.READ}),
    Role.READ: frozenset({Role.READ}),
    Role.NODE: frozenset({Role.NODE}),
}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One entry of the file. ``name`` is for people: it stands in the log, and tells which line to remove."""

    name: str
    role: Role


class ApiKeys:
    """The keys of one file, by the hash of the key."""

    def __init__(self, by_hash: Mapping[str, ApiKey]) -> None:
        self._by_hash = dict(by_hash)

    def __len__(self) -> int:
        return len(self._by_hash)

    def find(self, key: str) -> ApiKey | None:
        """The entry of a key, if it is one.

        Only its hash is compared: how long that takes tells nothing about the keys.
        """
        return self._by_hash.get(_hash(key))


_ENTRY = re.compile(r"(?P<name>\S+)\s+(?P<role>\S+)\s+sha256:(?P<hash>[0-9a-f]{64})")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def entry_of(name: str, role: Role, key: str) -> str:
    """The line of the file that admits ``key``."""
    return f"{name} {role} sha256:{_hash(key)}"


def parse_api_keys(text: str) -> ApiKeys:
    """Read a file of keys: one ``NAME ROLE sha256:HASH`` a line; empty lines and those that begin with # are skipped.

    Raises:
        ConfigurationError: names the line.
    """
    found: dict[str, ApiKey] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        entry = _ENTRY.fullmatch(line.strip())
        if entry is None:
            raise ConfigurationError(
                f"line {number} is not of the form NAME ROLE sha256:HASH (`plane api-key` makes one)"
            )
        if entry["role"] not in list(Role):
            raise ConfigurationError(f"line {number}: the role {entry['role']!r} is none of {', '.join(Role)}")
        if entry["hash"] in found:
            raise ConfigurationError(f"line {number} has the same key as {found[entry['hash']].name!r}")
        found[entry["hash"]] = ApiKey(entry["name"], Role(entry["role"]))
    if not found:
        raise ConfigurationError("it has no keys, so nobody could use the control API")
    return ApiKeys(found)


def bearer_token(authorization: str | None) -> str | None:
    """The token of an ``Authorization: Bearer`` header; the scheme in any case (RFC 9110, section 11.1)."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


# What belongs to the client's connection and not to its request (RFC 9110, section 7.6.1), and what describes a body
# that is not sent along (page 2, "Forward auth"). The path is ours to tell.
_NOT_FORWARDED = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-original-path",
    }
)
# Servers behind CGI or WSGI take all separators for one, and would see two paths.
_SEPARATORS = re.compile(r"[^a-z0-9]+")


def headers_to_forward(headers: Iterable[tuple[str, str]], path: str) -> list[tuple[str, str]]:
    """The headers of the question to the forward-auth server about a request for ``path``, as `routed_path` has it."""
    kept = [(name, value) for name, value in headers if _SEPARATORS.sub("-", name.lower()) not in _NOT_FORWARDED]
    return [*kept, ("x-original-path", path.removeprefix("/ctrl"))]
