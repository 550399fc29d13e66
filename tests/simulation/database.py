"""A model of the statements that decide about keys (``src/plane/database/*.sql``), on the database's own clock."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from plane.decisions.database.clock import ClockReading, LastConfirmation
from plane.decisions.keys.connect_request import HeldKey, KeyLookup, next_fencing_token
from plane.decisions.keys.drone_selection import DroneCandidate
from plane.protocol.backend_state import BackendStatus
from plane.protocol.times import DroneTime
from plane.timing import KEY_LEASE_S, UNHEALTHY_AFTER_S
from simulation.world import World

__all__ = ["Action", "DatabaseModel", "DroneRow", "KeyRow", "Mutations"]

CONFIRMATION_VALID_S = 3.0


@dataclass(frozen=True)
class Mutations:
    """Bugs that a test plants. Each is a rule that is left out."""

    # Expiry is decided by the database's clock, which steps.
    expiry_by_raw_clock: bool = False
    # Keys are granted while a failover may have lost commits.
    grants_after_failover: bool = False
    # A controller that misses commits after a failover does not object.
    missing_commits_ignored: bool = False
    # Two requests that find a key free both get it.
    conflict_ignored: bool = False
    # A lookup leaves an expired holder's row where it is, and the spawn overwrites it.
    expired_key_overwritten: bool = False
    # A fencing token is the database's time, whatever the last one was.
    tokens_by_time_only: bool = False
    # The database takes a lease for expired after 40 s.
    short_key_lease: bool = False
    # A silent drone is given up after half a minute.
    reaper_in_a_hurry: bool = False
    # Nobody kills when the drone does not.
    watchdog_off: bool = False
    # A process is started although its lease has expired.
    late_starts: bool = False
    # The watchdog kills 12 s later than it should.
    watchdog_late: bool = False
    # A drone's clock is the time of day, which steps.
    drone_clock_steps: bool = False
    # A renewal succeeds for a backend that has lost its key.
    renewal_after_expiry: bool = False
    # An order whose lease began on another clock is neither void nor refused.
    foreign_orders_accepted: bool = False
    # A drone that starts again does not tell its watchdog of the leases that it adopts.
    adopted_leases_not_enforced: bool = False


@dataclass
class KeyRow:
    """A row of ``backend_key`` with its backend's drone."""

    backend_id: str
    drone: str
    expires_at: float
    token: int
    allow_renew: bool = True


@dataclass
class DroneRow:
    """A row of ``drone``. ``identity``: of its state store and its clock."""

    last_heartbeat: float
    identity: tuple[str, str] | None = None
    last_local_ms: int | None = None


@dataclass(frozen=True)
class Action:
    """A spawn action, kept until the drone acknowledges it."""

    backend_id: str
    drone: str
    key: str
    token: int
    leased_at_ms: int


@dataclass
class Rows:
    """All that is stored, and lost when an older copy of the database takes over."""

    keys: dict[str, KeyRow] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    drones: dict[str, DroneRow] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)


class DatabaseModel:
    """One PostgreSQL. Each method is one statement or transaction: nothing happens in the middle of it."""

    def __init__(self, world: World, mutations: Mutations) -> None:
        self._world = world
        self._mutations = mutations
        self._offset_s = 1_000_000.0
        self.rows = Rows()
        self._lease_s = 40.0 if mutations.short_key_lease else KEY_LEASE_S
        self.timeline = "00000001 1"
        self.known_timeline = self.timeline
        self.grants_after = 0.0
        self.shifted_s = 0.0
        self.confirmed = LastConfirmation(self.clock(), None, None)
        self._copies: list[tuple[float, Rows]] = []

    # The clock.

    def clock(self) -> float:
        """The database's clock, which steps."""
        return self._world.now + self._offset_s

    def step_clock(self, by_s: float) -> None:
        """Set the clock."""
        self._offset_s += by_s

    def plane_now(self) -> float:
        """The time by which it is decided what has expired."""
        if self._mutations.expiry_by_raw_clock:
            return self.clock()
        return min(self.clock(), self.confirmed.confirmed_s + CONFIRMATION_VALID_S)

    def confirm(self, reading: ClockReading) -> None:
        """``confirm_clock``."""
        if reading.shifted_s == self.shifted_s and reading.database_s > self.confirmed.confirmed_s:
            self.confirmed = LastConfirmation(reading.database_s, "boot", reading.after_s)

    def shift(self, reading: ClockReading, step_s: float) -> float | None:
        """``begin_shift`` and ``shift_times``. Returns the new total, or None: another controller was first."""
        if self.shifted_s != reading.shifted_s:
            return None
        self.shifted_s += step_s
        self.confirmed = LastConfirmation(self.clock(), None, None)
        by_s, lease_end = max(step_s, 0.0), self.clock() + KEY_LEASE_S
        for key in self.rows.keys.values():
            key.expires_at = min(key.expires_at + by_s, lease_end)
        for drone in self.rows.drones.values():
            drone.last_heartbeat = min(drone.last_heartbeat + by_s, self.clock())
        self.grants_after = min(self.grants_after + by_s, lease_end)
        return self.shifted_s

    # Failover.

    def keep_copy(self) -> None:
        """Remember the rows as they are, for a standby that lags."""
        self._copies = [*self._copies[-5:], (self._world.now, copy.deepcopy(self.rows))]

    def fail_over(self, lag_s: float) -> None:
        """A standby takes over with the rows of a moment ago."""
        self._world.commits_lost = True
        for at, rows in reversed(self._copies):
            if self._world.now - at >= lag_s:
                self.rows = copy.deepcopy(rows)
                break
        self.timeline = f"{int(self.timeline[:8]) + 1:08} {self._world.now}"

    def record_failover(self, wait_s: float) -> None:
        """``record_failover``."""
        self.known_timeline = self.timeline
        self.grants_after = max(self.grants_after, self.clock() + wait_s)
        lease_end = self.clock() + KEY_LEASE_S
        for key in self.rows.keys.values():
            key.expires_at = max(key.expires_at, lease_end)
        for drone in self.rows.drones.values():
            drone.last_heartbeat = max(drone.last_heartbeat, self.clock() - KEY_LEASE_S)

    def may_grant(self) -> bool:
        """``plane_may_grant``."""
        if self._mutations.grants_after_failover:
            return True
        return self.timeline == self.known_timeline and self.grants_after <= self.plane_now()

    # Connect.

    def look_up(self, key: str) -> KeyLookup:
        """``look_up_keys`` for one key: its holder, whose row is deleted if it has expired; and a drone."""
        now, row = self.plane_now(), self.rows.keys.get(key)
        held, removed, last_token = None, False, self.rows.tokens.get(key)
        if row is not None:
            live = row.expires_at > now
            status = BackendStatus.READY if row.backend_id in self.rows.live else BackendStatus.TERMINATED
            held = HeldKey(row.backend_id, "", live, "c", status, None, None)
            if not live:
                if not self._mutations.expired_key_overwritten:
                    del self.rows.keys[key]
                removed, last_token = True, max(last_token or 0, row.token)
        fit = [
            (name, drone)
            for name, drone in self.rows.drones.items()
            if drone.last_local_ms is not None and drone.last_heartbeat > now - UNHEALTHY_AFTER_S
        ]
        candidate = None
        if fit:
            name, drone = self._world.random.choice(fit)
            assert drone.last_local_ms is not None
            candidate = DroneCandidate(int(name), name, DroneTime(drone.last_local_ms))
        return KeyLookup(
            held=held,
            removed=removed,
            drone=candidate,
            may_grant=self.may_grant(),
            db_now_ms=int(self.clock() * 1000),
            last_fencing_token=last_token,
        )

    def spawn(self, key: str, backend_id: str, lookup: KeyLookup) -> Action | None:
        """``spawn_backends`` for one key. None: another request was first, or nothing is granted now."""
        assert lookup.drone is not None
        name, leased_at_ms = lookup.drone.name, lookup.drone.local_time.ms
        last = None if self._mutations.tokens_by_time_only else lookup.last_fencing_token
        token = next_fencing_token(lookup.db_now_ms, last)
        drone = self.rows.drones.get(name)
        if not self.may_grant() or drone is None:
            return None
        if drone.last_local_ms is None or drone.last_local_ms < leased_at_ms:
            # The drone has connected again since its clock was looked up.
            return None
        if not self._mutations.tokens_by_time_only and token <= self.rows.tokens.get(key, 0):
            return None
        # Also if the key is not granted: tokens only rise.
        self.rows.tokens[key] = token
        is_overwritten = self._mutations.conflict_ignored or (
            self._mutations.expired_key_overwritten and lookup.removed
        )
        if not is_overwritten and key in self.rows.keys:
            return None
        self.rows.keys[key] = KeyRow(backend_id, name, self.clock() + self._lease_s, token)
        action = self.rows.actions[backend_id] = Action(backend_id, name, key, token, leased_at_ms)
        self.rows.live[backend_id] = key
        return action

    # Drones.

    def register(self, name: str, identity: tuple[str, str]) -> None:
        """``register_drone``, and ``void_spawn_actions`` for another store or clock."""
        row = self.rows.drones.get(name)
        if row is None:
            self.rows.drones[name] = DroneRow(self.clock(), identity)
            return
        if row.identity != identity and not self._mutations.foreign_orders_accepted:
            void = [action.backend_id for action in self.rows.actions.values() if action.drone == name]
            for backend_id in void:
                del self.rows.actions[backend_id]
        row.identity, row.last_local_ms = identity, None

    def heartbeat(self, name: str, identity: tuple[str, str], local_ms: int) -> None:
        """``record_heartbeats``, of the connection that is registered."""
        row = self.rows.drones.get(name)
        if row is not None and row.identity == identity:
            row.last_heartbeat, row.last_local_ms = self.clock(), local_ms

    def renew(self, backend_id: str) -> bool:
        """``renew_keys`` for one backend."""
        for row in self.rows.keys.values():
            if row.backend_id == backend_id and row.allow_renew:
                row.expires_at = max(row.expires_at, self.clock() + self._lease_s)
                return True
        return self._mutations.renewal_after_expiry

    def pending(self, name: str) -> list[Action]:
        """``pending_actions``."""
        return [action for action in self.rows.actions.values() if action.drone == name]

    def acknowledge(self, backend_id: str) -> None:
        """``acknowledge_actions``."""
        self.rows.actions.pop(backend_id, None)

    def terminated(self, backend_id: str, *, uncertain: bool = False) -> None:
        """``record_states`` with the last state, of a backend that is not terminated.

        The key is free; if the end is uncertain, it expires with its lease. A spawn action stays until it is
        acknowledged.
        """
        self.rows.live.pop(backend_id, None)
        for key, row in list(self.rows.keys.items()):
            if row.backend_id == backend_id:
                row.allow_renew = False
                if not uncertain or row.expires_at <= self.plane_now():
                    del self.rows.keys[key]
