"""What an operator asks of the control API about backends; additive to Plane 0.5.5."""

from __future__ import annotations

import msgspec

from plane.protocol.backend_state import BackendStatus, BackendStatusStreamEntry
from plane.protocol.keys import KeyConfig
from plane.protocol.times import DbTime

__all__ = ["BackendDetail", "BackendList", "BackendSummary"]


class BackendSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One backend of a list. ``since`` is when it entered its status; ``quiet_s`` counts from its last use.

    ``key`` is that for which it was started; None once its spawn action has been cleaned up.
    """

    id: str
    cluster: str
    status: BackendStatus
    since: DbTime
    drone: str
    pool: str
    quiet_s: int
    key: KeyConfig | None = None


class BackendList(msgspec.Struct, frozen=True):
    """``GET /ctrl/backends``, the latest change first. ``more``: there are others that match."""

    backends: list[BackendSummary]
    more: bool


class BackendDetail(BackendSummary, frozen=True, kw_only=True):
    """``GET /ctrl/b/{backend}``: all that the database has of a backend, but for its tokens.

    ``address`` is where its drone runs it. ``lease_ends_in_s`` and ``fencing_token`` are None when it holds no key any
    more. ``lifetime_ends_in_s`` and ``max_idle_s`` are None without such a limit. ``tokens`` counts those that still
    open connections; ``pending_actions`` what its drone has not acknowledged.
    """

    states: list[BackendStatusStreamEntry]
    address: str | None
    lease_ends_in_s: int | None
    fencing_token: int | None
    lifetime_ends_in_s: int | None
    max_idle_s: int | None
    subdomain: str | None
    static_token: bool
    tokens: int
    pending_actions: int
