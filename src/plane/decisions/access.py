"""Authorization by API keys: roles, the file of keys, and the headers for forward auth.

`plane.controller.api.auth` uses it for every request. A key is random and long, so its plain SHA-256 cannot be
reversed; the file has only the hash. See ``docs/decisions/0006-api-keys.md``.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from plane.protocol.errors import ConfigurationError

__all__ = [
    "ApiKey",
    "ApiKeys",
    "KeyRecord",
    "Role",
    "bearer_token",
    "headers_to_forward",
    "key_entry",
    "parse_api_keys",
]


class Role(enum.StrEnum):
    """The permissions of an API key.

    ``ADMIN``: everything. ``CONNECT``: for applications: connect, terminate backends, revoke tokens, and everything of
    ``READ``: read states, logs and metrics. ``NODE``: connect as a drone, a proxy or a DNS server, and nothing else.
    """

    ADMIN = "admin"
    CONNECT = "connect"
    READ = "read"
    NODE = "node"

    def may(self, needed: Role) -> bool:
        """Return whether this role includes ``needed``."""
        return needed in _INCLUDED[self]


_INCLUDED = {
    Role.ADMIN: frozenset(Role),
    Role.CONNECT: frozenset({Role.CONNECT, Role.READ}),
    Role.READ: frozenset({Role.READ}),
    Role.NODE: frozenset({Role.NODE}),
}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One entry of the file. ``name`` is for people: in logs, and to find the line to remove."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An entry with the hash of its key, and the fingerprint that names it where neither may be shown."""

    key: ApiKey
    hash: str
    fingerprint: str


class ApiKeys:
    """The entries of one file, by the hashes of their keys."""

    def __init__(self, by_hash: Mapping[str, ApiKey]) -> None:
        self._by_hash = dict(by_hash)
        records = (KeyRecord(key, hashed, _fingerprint(hashed)) for hashed, key in by_hash.items())
        self._by_fingerprint = {record.fingerprint: record for record in records}

    def __len__(self) -> int:
        return len(self._by_hash)

    def find(self, key: str) -> ApiKey | None:
        """Return the entry of a key; None for an unknown key.

        Only hashes are compared, so the time that it takes reveals nothing about the keys.
        """
        return self._by_hash.get(_hash(key))

    def record(self, key: str) -> KeyRecord | None:
        """Return the record of a key; None for an unknown key."""
        return self._by_fingerprint.get(_fingerprint(_hash(key)))

    def of_fingerprint(self, fingerprint: str) -> KeyRecord | None:
        """Return the record with this fingerprint; None if there is none."""
        return self._by_fingerprint.get(fingerprint)


_ENTRY = re.compile(r"(?P<name>\S+)\s+(?P<role>\S+)\s+sha256:(?P<hash>[0-9a-f]{64})")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _fingerprint(hashed: str) -> str:
    """Return 128 bits that name a key without its hash."""
    return hashlib.sha256(f"fingerprint {hashed}".encode()).hexdigest()[:32]


def key_entry(name: str, role: Role, key: str) -> str:
    """Return the line of the file for ``key``."""
    return f"{name} {role} sha256:{_hash(key)}"


def parse_api_keys(text: str) -> ApiKeys:
    """Parse a file of keys: one ``NAME ROLE sha256:HASH`` per line; empty lines and comments (#) are skipped.

    Raises:
        ConfigurationError: the file is invalid; the message names the line.
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
        raise ConfigurationError("it has no keys, so no one could use the control API; add one with `plane api-key`")
    return ApiKeys(found)


def bearer_token(authorization: str | None) -> str | None:
    """Return the token of an ``Authorization: Bearer`` header; the scheme ignores case (RFC 9110, section 11.1)."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


# Headers of the client's connection (RFC 9110, section 7.6.1), and of the body, which is not forwarded. The controller
# itself sets the path.
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
# Servers behind CGI or WSGI do not distinguish separators, and would see two paths.
_SEPARATORS = re.compile(r"[^a-z0-9]+")


def headers_to_forward(headers: Iterable[tuple[str, str]], path: str) -> list[tuple[str, str]]:
    """Return the headers for the forward-auth server about a request for ``path``, as returned by `routed_path`."""
    kept = [(name, value) for name, value in headers if _SEPARATORS.sub("-", name.lower()) not in _NOT_FORWARDED]
    return [*kept, ("x-original-path", path.removeprefix("/ctrl"))]
