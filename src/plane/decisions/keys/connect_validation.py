"""Validation of connect requests before they reach the database: size and content of every field.

Called by `plane.controller.api.connect` after decoding, which checks the types. A refusal names the path of the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from plane.protocol import codec
from plane.protocol.control_api import ConnectRequest
from plane.protocol.errors import ApiErrorKind, ApiFailure, InvalidName
from plane.protocol.names import Prefix, check_name, check_subdomain
from plane.protocol.spawn import SpawnConfig

__all__ = ["check_connect_request", "check_identity"]

# Of the database's columns.
MAX_TEXT_LENGTH = 255
# `auth` is sent in a header, escaped to ASCII; servers commonly refuse request heads of more than 16 KiB.
MAX_AUTH_BYTES = 8 * 1024
# PostgreSQL writes `1e300` with its 301 digits, so an order could be fifty times as long as its request. Far more than
# the numbers of any executable have; with the largest body still far less than the largest message of a node.
MAX_DIGITS = 64 * 1024
_EXPONENT = re.compile(rb"[0-9]e-?[0-9]")
# A hundred years: beyond any use, within PostgreSQL's range.
MAX_SECONDS = 100 * 365 * 24 * 3600

# Characters that are valid in a header value and that every proxy forwards: RFC 9110, section 5.5, without obs-text.
_HEADER_SAFE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")


def _refuse(path: str, reason: str) -> ApiFailure:
    return ApiFailure(400, ApiErrorKind.OTHER, f"{path}: {reason}")


def check_connect_request(request: ConnectRequest) -> None:
    """Validate a request.

    Raises:
        ApiFailure: 400, with the path of the field and the rule.
    """
    if request.key is not None:
        _check_text("key.name", request.key.name)
        _check_text("key.namespace", request.key.namespace)
        _check_text("key.tag", request.key.tag)
    if request.user is not None:
        _check_text("user", request.user)
        if request.user and not _HEADER_SAFE.fullmatch(request.user):
            raise _refuse(
                "user",
                "may have printable ASCII only, since it is sent in a header; put other text into `auth`",
            )
    if request.auth:
        _check_json("auth", request.auth, MAX_AUTH_BYTES)
        if len(codec.encode(request.auth)) > MAX_AUTH_BYTES:
            raise _refuse("auth", f"at most {MAX_AUTH_BYTES} bytes of JSON are allowed")
    if request.spawn_config is not None:
        _check_spawn_config(request.spawn_config)
        if request.spawn_config.use_static_token:
            check_identity(request)


def check_identity(request: ConnectRequest) -> None:
    """Refuse an identity for a backend with a static token: its clients share the token, so it receives no identity.

    Raises:
        ApiFailure: 400, with the name of the field.
    """
    for name, value in (("user", request.user), ("auth", request.auth)):
        if value:
            raise _refuse(
                name,
                "cannot be given with a static token (spawn_config.use_static_token), which all clients of the backend "
                f"share; leave out {name}, or use dynamic tokens",
            )


def _check_spawn_config(config: SpawnConfig) -> None:
    if config.id is not None:
        _named("spawn_config.id", lambda name: check_name(name, Prefix.BACKEND), config.id)
    if config.subdomain is not None:
        _named("spawn_config.subdomain", check_subdomain, config.subdomain)
    if config.token_in_cookie is True and config.subdomain is None:
        raise _refuse("spawn_config.token_in_cookie", "needs `subdomain`: a host of its own that the cookie belongs to")
    if config.cluster is not None:
        _check_text("spawn_config.cluster", config.cluster)
    _check_text("spawn_config.pool", config.pool)
    _check_seconds("spawn_config.lifetime_limit_seconds", config.lifetime_limit_seconds, least=1)
    _check_seconds("spawn_config.max_idle_seconds", config.max_idle_seconds, least=0)
    if not isinstance(config.executable, dict):
        raise _refuse(
            "spawn_config.executable",
            'must be an object, as {"image": "…"} for Docker or {"command": ["…"]} for processes',
        )
    _check_json("spawn_config.executable", config.executable, MAX_DIGITS)
    limits = config.executable.get("resource_limits")
    if isinstance(limits, dict):
        for name, value in limits.items():
            if isinstance(value, int | float) and value < 0:
                raise _refuse(f"spawn_config.executable.resource_limits.{name}", "must not be negative")


def _named(path: str, check: Any, value: str) -> None:
    try:
        check(value)
    except InvalidName as error:
        raise _refuse(path, str(error)) from None


def _check_text(path: str, value: str) -> None:
    if len(value) > MAX_TEXT_LENGTH:
        raise _refuse(path, f"has {len(value)} characters; at most {MAX_TEXT_LENGTH} are allowed")
    if "\0" in value:
        raise _refuse(path, "must not contain NUL")


def _check_seconds(path: str, value: int | None, *, least: int) -> None:
    if value is not None and not least <= value <= MAX_SECONDS:
        raise _refuse(path, f"must be from {least} to {MAX_SECONDS} seconds")


def _check_json(path: str, value: Any, max_digits: int) -> None:
    """Refuse what PostgreSQL's jsonb cannot store, and numbers that it writes with more than ``max_digits`` in all."""
    encoded = codec.encode(value)
    has_nul, may_have_exponents = b"\\u0000" in encoded, _EXPONENT.search(encoded) is not None
    if not has_nul and not may_have_exponents:
        return
    digits = 0
    for where, item in _leaves(path, value):
        if isinstance(item, float):
            digits += len(f"{Decimal(repr(item)):f}")
            if digits > max_digits:
                raise _refuse(where, f"the numbers up to here have more than {max_digits} digits")
        elif "\0" in item:
            raise _refuse(where, "must not contain NUL")


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str | float]]:
    """Yield every string in a JSON value, names of members included, and every number with a fraction, with its path.

    Iteratively, since it may be deep.
    """
    todo = [(path, value)]
    while todo:
        where, item = todo.pop()
        if isinstance(item, str | float):
            yield where, item
        elif isinstance(item, dict):
            for name, member in item.items():
                yield where, name
                todo.append((f"{where}.{name}", member))
        elif isinstance(item, list):
            todo.extend((f"{where}[{index}]", member) for index, member in enumerate(item))
