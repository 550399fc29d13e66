"""Random names and tokens: the only place that draws them."""

from __future__ import annotations

import secrets

from plane.protocol.names import ALPHABET, RANDOM_LENGTH, Prefix

__all__ = ["random_name", "random_static_token", "random_token"]


def random_name(prefix: Prefix = Prefix.BACKEND) -> str:
    """``{prefix}-`` and 14 characters of a-z0-9; a backend's name has no prefix and dash."""
    # One draw for all characters, long enough that none is likelier than another by more than 2**-55.
    number = int.from_bytes(secrets.token_bytes(16))
    tail = ""
    for _ in range(RANDOM_LENGTH):
        number, place = divmod(number, len(ALPHABET))
        tail += ALPHABET[place]
    return f"{prefix}-{tail}" if prefix else tail


def random_token() -> str:
    """32 random bytes, base64url without padding: a connection or a secret token."""
    return secrets.token_urlsafe(32)


def random_static_token() -> str:
    """A connection token that belongs to a backend for its whole life."""
    return f"s.{random_token()}"
