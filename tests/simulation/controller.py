"""Controllers that share the database, and clients that connect to them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from plane.decisions.backends.lost_drones import ReapAction, SuspectBackend, classify
from plane.decisions.database.clock import ClockAction, ClockReading, DatabaseClock
from plane.decisions.database.failover import DatabaseState, may_lack_commits, no_grants_for
from plane.decisions.keys.connect_request import Retry, Reuse, decide
from plane.protocol.backend_state import BackendStatus
from plane.protocol.control_api import ConnectRequest
from plane.protocol.errors import ApiFailure
from plane.protocol.keys import KeyConfig
from plane.protocol.spawn import SpawnConfig
from plane.timing import CLOCK_POLL_INTERVAL_S, KEY_GONE_AFTER_S, REAP_INTERVAL_S
from simulation.database import Action, DatabaseModel, Mutations
from simulation.world import World

if TYPE_CHECKING:
    from simulation.machine import Machine

__all__ = ["Controllers"]


class Controllers:
    """All controllers of a cluster.

    Args:
        count: each watches the database's clock and timeline by itself.
    """

    def __init__(self, world: World, db: DatabaseModel, mutations: Mutations, count: int) -> None:
        self._world = world
        self._db = db
        self._mutations = mutations
        self._ids = itertools.count(1)
        self._machines: dict[str, Machine] = {}
        self._end_ordered: dict[str, float] = {}
        self._watches = [_Watch(db, world, mutations, f"boot-of-co-{number}") for number in range(count)]
        for watch in self._watches:
            world.every(CLOCK_POLL_INTERVAL_S, watch.poll)
        world.every(REAP_INTERVAL_S, self._reap)
        world.every(1.0, db.keep_copy)

    def add(self, machine: Machine) -> None:
        """Let the machine's drone receive actions."""
        self._machines[machine.name] = machine

    def connect(self, key: str) -> None:
        """A client's request: two statements, between which others have theirs."""
        request = ConnectRequest(key=KeyConfig(name=key), spawn_config=SpawnConfig(executable={}))
        lookup = self._db.look_up(key)
        try:
            outcome = decide(request, "c", lookup)
        except ApiFailure:
            return
        if isinstance(outcome, Reuse | Retry):
            return
        backend_id = f"b{next(self._ids)}"

        def spawn() -> None:
            action = self._db.spawn(key, backend_id, lookup)
            if action is not None:
                self._world.tell(f"key {key} is given to {backend_id} on {action.drone} (token {action.token})")
                # The controller that has given the key knows that at once; the others by its event.
                for watch in self._watches:
                    watch.tokens[key] = action.token
                self._deliver(action)

        self._world.after(self._world.latency(), spawn)

    def _deliver(self, action: Action) -> None:
        machine = self._machines[action.drone]
        connection = machine.connection
        self._world.after(self._world.latency(), lambda: machine.receive(action, connection))

    def register(self, machine: Machine) -> None:
        """A drone's handshake."""
        self._db.register(machine.name, machine.identity)

    def heartbeat(self, name: str, identity: tuple[str, str], local_ms: int) -> None:
        """A drone's heartbeat."""
        self._db.heartbeat(name, identity, local_ms)

    def pending(self, name: str) -> list[Action]:
        """Actions that the drone has not acknowledged."""
        return self._db.pending(name)

    def acknowledge(self, backend_id: str) -> None:
        """The drone has applied the action."""
        self._world.after(self._world.latency(), lambda: self._db.acknowledge(backend_id))

    def renew(self, backend_id: str) -> bool:
        """A drone's renewal."""
        return self._db.renew(backend_id)

    def terminated(self, backend_id: str) -> None:
        """A drone reports the end of a backend."""
        self._db.terminated(backend_id)

    def _reap(self) -> None:
        now = self._db.plane_now()
        rows = self._db.rows
        keys = {row.backend_id: row for row in rows.keys.values()}
        for backend_id in list(rows.live):
            key = keys.get(backend_id)
            action = rows.actions.get(backend_id)
            name = key.drone if key is not None else action.drone if action is not None else None
            drone = rows.drones.get(name or "")
            if name is None or drone is None:
                rows.live.pop(backend_id)
                continue
            gone = key is None or key.expires_at < now - KEY_GONE_AFTER_S
            ordered = self._end_ordered.get(backend_id)
            suspect = SuspectBackend(
                backend_id,
                int(name),
                BackendStatus.READY,
                drone_silent_s=(now - drone.last_heartbeat) * (4 if self._mutations.reaper_in_a_hurry else 1),
                in_status_s=0,
                past_hard_deadline=key is None or key.expires_at - 10 < now,
                spawn_acknowledged=action is None,
                key_gone=gone,
                end_ordered_s=None if ordered is None else now - ordered,
            )
            match classify(suspect):
                case ReapAction.MARK_LOST:
                    self._world.tell(f"backend {backend_id} is given up")
                    self._db.terminated(backend_id)
                case ReapAction.TERMINATE:
                    self._end_ordered.setdefault(backend_id, now)
                case _:
                    pass


class _Watch:
    """One controller's watch of the database's clock and timeline."""

    def __init__(self, db: DatabaseModel, world: World, mutations: Mutations, boot_id: str) -> None:
        self._world = world
        self._mutations = mutations
        self._db = db
        self._clock = DatabaseClock(boot_id)
        self._state: DatabaseState | None = None
        self.tokens: dict[str, int] = {}

    def poll(self) -> None:
        db = self._db
        before_s = self._world.now
        reading = ClockReading(before_s, before_s + 0.001, db.clock(), db.shifted_s)
        decision = self._clock.read(reading, db.confirmed)
        if decision.action is ClockAction.CONFIRM:
            db.confirm(reading)
        elif decision.action is ClockAction.SHIFT:
            shifted_s = db.shift(reading, decision.step_s)
            if shifted_s is not None:
                self._world.tell(f"stored times are shifted by {decision.step_s:.0f} s")
                self._clock.has_shifted(shifted_s)
        self._watch_timeline()

    def _watch_timeline(self) -> None:
        db = self._db
        state = DatabaseState(db.timeline, None)
        before = self._state or DatabaseState(db.known_timeline, None)
        if may_lack_commits(before, state) or db.timeline != db.known_timeline:
            missing = None
            if self._state is not None:
                missing = sum(1 for key, token in self.tokens.items() if db.rows.tokens.get(key, 0) < token)
            if self._mutations.missing_commits_ignored:
                missing = 0
            db.record_failover(no_grants_for(missing, before.timeline, state.timeline))
        self._state = state
