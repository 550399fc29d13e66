"""Sessions of the console: issue and verify the cookie, and the token that every change carries.

A session is stateless: ``FINGERPRINT.EXPIRY.MAC``. The key of the MAC is derived from a secret in the database and from
the SHA-256 of the API key in the key file. So neither a writer of the database nor a reader of the key file can forge a
session, every controller accepts it, and it ends when the API key is removed from the file. See
``docs/decisions/0022-console.md``. Called by `plane.controller.console.guard`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Protocol

from plane.decisions.access import ApiKey, KeyRecord, Role

__all__ = ["SESSION_LIFETIME_S", "KeyRecords", "Session", "SessionSigner"]

# A working day. A stolen cookie is of no use after it.
SESSION_LIFETIME_S = 12 * 3600

_COOKIE = re.compile(r"(?P<signed>(?P<fingerprint>[0-9a-f]{32})\.(?P<expires_at>[0-9]{1,12}))\.(?P<mac>[0-9a-f]{64})")


class KeyRecords(Protocol):
    """The keys of a controller's key file."""

    def of_fingerprint(self, fingerprint: str) -> KeyRecord | None:
        """Return the record with this fingerprint; None if there is none (any more)."""


@dataclass(frozen=True, slots=True)
class Session:
    """A caller of the console.

    Attributes:
        key: the API key that signed in.
        csrf_token: what a change must carry. Another page cannot read it.
        expires_at: seconds since 1970, by the clock of the controller that issued the session.
    """

    key: ApiKey
    csrf_token: str
    expires_at: int


class SessionSigner:
    """Issues and verifies sessions. ``secret`` is the database's."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, record: KeyRecord, now: float) -> str:
        """Return the cookie of a new session of the API key ``record``. ``now``: seconds since 1970."""
        signed = f"{record.fingerprint}.{int(now) + SESSION_LIFETIME_S}"
        return f"{signed}.{_mac(self._key(record), signed)}"

    def verify(self, cookie: str, records: KeyRecords, now: float) -> Session | None:
        """Return the session of ``cookie``; None if it is malformed, forged or expired, or its API key was removed."""
        found = _COOKIE.fullmatch(cookie)
        if found is None:
            return None
        record = records.of_fingerprint(found["fingerprint"])
        if record is None:
            return None
        key = self._key(record)
        if not hmac.compare_digest(found["mac"], _mac(key, found["signed"])):
            return None
        expires_at = int(found["expires_at"])
        if now >= expires_at:
            return None
        return Session(record.key, _mac(key, f"csrf {cookie}"), expires_at)

    def without_keys(self, now: float) -> Session:
        """Return the session of every caller of a controller without API keys, who may do everything."""
        key = _digest(self._secret, b"plane console without keys")
        return Session(ApiKey("local", Role.ADMIN), _mac(key, "csrf"), int(now) + SESSION_LIFETIME_S)

    def _key(self, record: KeyRecord) -> bytes:
        return _digest(self._secret, b"plane console session " + record.hash.encode())


def _mac(key: bytes, text: str) -> str:
    return _digest(key, text.encode()).hex()


def _digest(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()
