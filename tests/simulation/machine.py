"""A machine with a drone, its watchdog and its processes. Both programs may be stopped or killed, one at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from plane.decisions.backends.deadline_enforcement import DeadlineTable, DroneStatus, Step
from plane.decisions.keys.lease import KeyLease, LeaseAction, foreign_lease_reason, lease_deadlines
from plane.drone.clock import ClockReading, DroneClock
from plane.protocol.keys import KeyDeadlines
from plane.protocol.times import DroneTime
from plane.timing import CLOCK_STORE_INTERVAL_S
from simulation.database import Action, Mutations
from simulation.world import Life, World

if TYPE_CHECKING:
    from simulation.controller import Controllers

__all__ = ["Machine"]

DRONE_TICK_S = 0.5
WATCHDOG_TICK_S = 0.5
HEARTBEAT_S = 5.0
SILENT_AFTER_S = 5.0


@dataclass
class Stored:
    """The drone's state store: its clock, and the lease of each backend."""

    store_id: str
    clock_id: str
    clock: ClockReading | None = None
    began: DroneTime | None = None
    last_known: DroneTime | None = None
    leases: dict[str, tuple[str, int, KeyDeadlines]] = field(default_factory=dict)
    # Backends that have ended: an action that comes once more starts none of them again.
    ended: set[str] = field(default_factory=set)


class Machine:
    """One machine.

    Args:
        rate: seconds of its clock per second of the world.
    """

    def __init__(self, name: str, world: World, controllers: Controllers, mutations: Mutations, rate: float) -> None:
        self.name = name
        self.reachable = True
        self._world = world
        self._controllers = controllers
        self._mutations = mutations
        self._rate = rate
        self._boot = 0
        self._booted_at = world.now
        self._time_of_day_step_s = 0.0
        self._stores = 0
        self._stored = self._new_store()
        self._lives: dict[str, Life] = {}
        self._table = DeadlineTable(ends_with_drone=False)
        # Of watchdogs that outlive a lost store: nobody tells them of renewals, or replaces them.
        self._former_tables: list[DeadlineTable] = []
        self._drone_until = self._watchdog_until = 0.0
        self._drone_runs = self._registered = False
        self._generation = 0
        self._sent_at = 0.0
        world.every(DRONE_TICK_S, self._tick)
        world.every(WATCHDOG_TICK_S, self._watch)
        world.every(HEARTBEAT_S, self._heartbeat)
        world.every(CLOCK_STORE_INTERVAL_S, self._store_clock)
        self.start_drone()

    # Clocks.

    def _boottime_ns(self) -> int:
        step_s = self._time_of_day_step_s if self._mutations.drone_clock_steps else 0.0
        return int((self._world.now - self._booted_at) * self._rate * 1e9 + step_s * 1e9) + 1

    def _new_store(self) -> Stored:
        self._stores += 1
        return Stored(f"{self.name}-store-{self._stores}", "")

    def _store_clock(self) -> None:
        if self._acts():
            self._stored.last_known = self._clock.now()

    # Faults. That a drone and its watchdog are stopped together is what the guarantees exclude.

    @property
    def _watchdog_acts(self) -> bool:
        return self._world.now >= self._watchdog_until

    def stop_drone(self, for_s: float) -> None:
        """SIGSTOP for a while."""
        if not self._watchdog_acts:
            return
        self._world.tell(f"drone {self.name} is stopped for {for_s:.0f} s")
        self._drone_until = self._world.now + for_s

    def stop_watchdog(self, for_s: float) -> None:
        """SIGSTOP until its drone replaces it after a few seconds."""
        if not self._acts():
            return
        self._world.tell(f"watchdog of {self.name} is stopped")
        self._watchdog_until = self._world.now + min(for_s, 4.0)

    def kill_drone(self, restart_after_s: float) -> None:
        """SIGKILL. Its watchdog and its processes live on."""
        if not self._watchdog_acts:
            return
        self._world.tell(f"drone {self.name} is killed, and starts again after {restart_after_s:.0f} s")
        self._drone_runs = False
        self._world.after(restart_after_s, self.start_drone)

    def lose_store(self) -> None:
        """The drone starts with an empty store, and does not know its processes."""
        if not self._watchdog_acts:
            return
        self._world.tell(f"drone {self.name} loses its state store")
        self._drone_runs = False
        self._stored = self._new_store()
        self._former_tables.append(self._table)
        self._table = DeadlineTable(ends_with_drone=False)
        self._world.after(2.0, self.start_drone)

    def step_time_of_day(self, by_s: float) -> None:
        """Set the machine's time of day, on which no lease depends."""
        self._world.tell(f"the time of day of {self.name} steps by {by_s:.0f} s")
        self._time_of_day_step_s += by_s

    def reboot(self, for_s: float) -> None:
        """All processes end; the clock begins anew."""
        self._world.tell(f"{self.name} is rebooted")
        for life in list(self._lives.values()):
            self._end(life)
        self._drone_runs = False
        self._boot += 1
        self._booted_at = self._world.now
        self._former_tables.clear()
        self._table = DeadlineTable(ends_with_drone=False)
        self._world.after(for_s, self.start_drone)

    # The drone.

    def _acts(self) -> bool:
        return self._drone_runs and self._world.now >= self._drone_until

    def start_drone(self) -> None:
        """Start the drone's program: its clock continues if the machine was not booted since."""
        if self._drone_runs:
            return
        stored = self._stored
        self._clock = DroneClock(
            stored.clock,
            stored_began=stored.began,
            last_known=stored.last_known,
            boot_id=f"boot-{self._boot}",
            time_of_day_ns=lambda: int((self._world.now + self._time_of_day_step_s + 1_700_000_000) * 1e9),
            since_boot_ns=self._boottime_ns,
        )
        if not self._clock.continues:
            stored.clock_id = f"{self.name}-clock-{self._world.now}"
            # Nothing of the former boot runs, and its leases mean nothing on this clock.
            stored.ended |= set(stored.leases)
            stored.leases.clear()
        stored.clock, stored.began = self._clock.reading, self._clock.began
        stored.last_known = self._clock.now()
        self._leases = {backend_id: KeyLease(deadlines) for backend_id, (_, _, deadlines) in stored.leases.items()}
        # The new drone's watchdog replaces the former one, and knows all leases of the store.
        self._table = DeadlineTable(ends_with_drone=False)
        if not self._mutations.adopted_leases_not_enforced:
            for backend_id, lease in self._leases.items():
                self._enforce(backend_id, lease.deadlines)
        self._drone_runs = True
        self._drone_until = self._world.now
        self._generation += 1
        self._registered = False
        self._world.tell(f"drone {self.name} runs")

    @property
    def identity(self) -> tuple[str, str]:
        """The identity in its handshake."""
        return self._stored.store_id, self._stored.clock_id

    def _heartbeat(self) -> None:
        if not self._acts() or not self.reachable:
            return
        generation, identity, local_ms = self._generation, self.identity, self._clock.now().ms

        def arrive() -> None:
            if generation != self._generation:
                # Its connection has ended.
                return
            if not self._registered:
                self._controllers.register(self)
                self._registered = True
                # An accepted drone ends what runs under its name and is not in its store, before it starts anything.
                self._world.after(self._world.latency(), lambda: self._end_orphans(generation))
            self._controllers.heartbeat(self.name, identity, local_ms)
            for action in self._controllers.pending(self.name):
                self._world.after(self._world.latency(), partial(self.receive, action, self.connection))

        self._world.after(self._world.latency(), arrive)

    def _end_orphans(self, generation: int) -> None:
        if generation == self._generation and self._acts():
            for life in [each for each in self._lives.values() if each.backend_id not in self._stored.leases]:
                self._world.after(self._world.random.random(), partial(self._end, life))

    @property
    def connection(self) -> int | None:
        """The connection that a controller has to this drone; None: there is none."""
        return self._generation if self._drone_runs and self._registered and self.reachable else None

    def receive(self, action: Action, connection: int | None) -> None:
        """A spawn action arrives on a connection."""
        if connection is None or connection != self.connection:
            return
        if self._world.now < self._drone_until:
            # A stopped drone reads it when it continues.
            self._world.after(self._drone_until - self._world.now + 0.001, lambda: self.receive(action, connection))
            return
        known = action.backend_id in self._stored.leases or action.backend_id in self._stored.ended
        if known or action.backend_id in self._lives:
            self._controllers.acknowledge(action.backend_id)
            return
        deadlines = lease_deadlines(DroneTime(action.leased_at_ms))
        now = self._clock.now()
        foreign = foreign_lease_reason(deadlines, self._clock.began, now) is not None
        if self._mutations.foreign_orders_accepted:
            foreign = False
        too_late = now >= deadlines.soft_terminate_at
        if (foreign or too_late) and not self._mutations.late_starts:
            self._world.after(self._world.latency(), lambda: self._controllers.terminated(action.backend_id))
            self._controllers.acknowledge(action.backend_id)
            return
        if any(life.backend_id not in self._stored.leases for life in self._lives.values()):
            # Orphans may run: the action is refused for now.
            return
        self._stored.leases[action.backend_id] = (action.key, action.token, deadlines)
        self._leases[action.backend_id] = KeyLease(deadlines)
        self._enforce(action.backend_id, deadlines)
        self._controllers.acknowledge(action.backend_id)
        generation = self._generation
        self._world.after(self._world.latency(), lambda: self._start(action, deadlines, generation, self._boot))

    def _start(self, action: Action, deadlines: KeyDeadlines, generation: int, boot: int) -> None:
        """Start the process. The shell that does it compares the time with the deadline, whatever the drone does."""
        if boot != self._boot or action.backend_id in self._lives or action.backend_id not in self._stored.leases:
            return
        if self._world.now < self._drone_until and self._world.random.random() < 0.5:
            # The drone was stopped between its decision and the start.
            delay = self._drone_until - self._world.now + 0.01
            self._world.after(delay, lambda: self._start(action, deadlines, generation, boot))
            return
        started_at_ns = self._boottime_ns()
        if started_at_ns >= self._clock.since_boot_ns(deadlines.hard_terminate_at) and not self._mutations.late_starts:
            return
        life = Life(action.key, action.token, action.backend_id, self.name, self._world.now)
        self._lives[action.backend_id] = life
        self._world.begin(life)
        if self._world.random.random() < 0.3:
            # Many processes end by themselves.
            self._world.after(200 * self._world.random.random(), lambda: self._end(life))

    def _tick(self) -> None:
        if not self._acts():
            return
        now = self._clock.now()
        self._sent_at = self._world.now
        for backend_id, lease in list(self._leases.items()):
            for action in lease.due(now):
                self._do(backend_id, action, now)
        for backend_id in [each for each in self._stored.leases if each not in self._lives]:
            # Ended, or not started yet: it is reported once its start cannot be under way any more.
            if now >= self._leases[backend_id].deadlines.hard_terminate_at or self._world.random.random() < 0.05:
                self._forget(backend_id)

    def _do(self, backend_id: str, action: LeaseAction, now: DroneTime) -> None:
        if action is LeaseAction.RENEW:
            if self.reachable:
                generation = self._generation
                self._world.after(self._world.latency(), lambda: self._renew(backend_id, now, generation))
        else:
            life = self._lives.get(backend_id)
            if life is not None:
                grace_s = 1.0 if action is LeaseAction.TERMINATE_HARD else 9.0
                self._world.after(grace_s * self._world.random.random(), lambda: self._end(life))

    def _renew(self, backend_id: str, sent: DroneTime, generation: int) -> None:
        renewed = self._controllers.renew(backend_id)

        def arrive() -> None:
            lease = self._leases.get(backend_id)
            if lease is None or generation != self._generation or not self.reachable or not self._acts():
                return
            if not renewed:
                lease.refused()
                return
            deadlines = lease_deadlines(sent)
            if foreign_lease_reason(deadlines, self._clock.began, self._clock.now()) is None:
                lease.renewed(deadlines)
                key, token, _ = self._stored.leases[backend_id]
                self._stored.leases[backend_id] = (key, token, deadlines)
                self._enforce(backend_id, deadlines)

        self._world.after(self._world.latency(), arrive)
        self._world.after(10.0, lambda: self._retry(backend_id, generation))

    def _retry(self, backend_id: str, generation: int) -> None:
        lease = self._leases.get(backend_id)
        if lease is not None and generation == self._generation and not lease.is_refused:
            lease.connected()

    def _forget(self, backend_id: str) -> None:
        del self._stored.leases[backend_id], self._leases[backend_id]
        self._stored.ended.add(backend_id)
        self._table.release(backend_id)
        self._report(backend_id)

    def _report(self, backend_id: str) -> None:
        """Report the end until a controller has stored it."""
        if self.reachable:
            self._world.after(self._world.latency(), lambda: self._controllers.terminated(backend_id))
        else:
            self._world.after(5.0, lambda: self._report(backend_id))

    def _end(self, life: Life) -> None:
        self._world.end(life)
        self._lives.pop(life.backend_id, None)

    # The watchdog.

    def _enforce(self, backend_id: str, deadlines: KeyDeadlines) -> None:
        soft = self._clock.since_boot_ns(deadlines.soft_terminate_at)
        hard = self._clock.since_boot_ns(deadlines.hard_terminate_at)
        self._table.set_deadlines(backend_id, soft, hard)

    def _watch(self) -> None:
        if not self._watchdog_acts or self._mutations.watchdog_off:
            return
        silent = self._world.now - self._sent_at > SILENT_AFTER_S
        drone = DroneStatus.GONE if not self._drone_runs else DroneStatus.SILENT if silent else DroneStatus.ALIVE
        now_ns = self._boottime_ns() - (12_000_000_000 if self._mutations.watchdog_late else 0)
        for table, its_drone in ((self._table, drone), *((each, DroneStatus.GONE) for each in self._former_tables)):
            for backend_id, step in table.due(now_ns, its_drone):
                life = self._lives.get(backend_id)
                if step is Step.KILL:
                    table.record_kill(backend_id, now_ns, alive=life is not None)
                if life is not None:
                    delay = 0.2 if step is Step.KILL else 9.0
                    self._world.after(delay * self._world.random.random(), partial(self._end, life))
        self._former_tables = [each for each in self._former_tables if not each.all_ended]
