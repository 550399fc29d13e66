"""Random names and tokens. Nothing else in the package draws them."""

from __future__ import annotations

import secrets

from plane.protocol.names import ALPHABET, RANDOM_LENGTH, Prefix

__all__ = ["random_name", "random_static_token", "random_token"]


def random_name(prefix: Prefix = Prefix.BACKEND) -> str:
    """Return ``{prefix}-`` and 14 characters of a-z0-9. A backend's name has no prefix and no dash."""
    # One draw for all characters. It is long enough that no character is likelier than another by more than 2**-55.
    number = int.from_bytes(secrets.token_bytes(16))
    tail = ""
    for _ in range(RANDOM_LENGTH):
        number, place = divmod(number, len(ALPHABET))
        tail += ALPHABET[place]
    return f"{prefix}-{tail}" if prefix else tail


def random_token() -> str:
    """Return 32 random bytes in base64url without padding: a connection token or a secret token."""
    return secrets.token_urlsafe(32)


def random_static_token() -> str:
    """Return a connection token that is valid for the whole life of its backend."""
    return f"s.{random_token()}"
