"""One run: starts the cluster, lets clients use it, carries out the faults, waits until all is settled, and records."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from faults import fault_kinds
from faults.clients import CHURN_WEIGHTS, DOCKER_KEY, WEIGHTS, Clients
from faults.cluster import FaultyCluster
from faults.history import (
    FaultBegan,
    FaultEnded,
    History,
    Record,
    RunEnded,
    StoredBackend,
    StoredOnDrone,
    write_history,
)
from faults.hosts import make_bridge, remove_control_groups
from faults.observer import Observer, boottime
from faults.schedule import DATABASE, KINDS, ROUND_S, PlannedFault, draw

__all__ = ["COUNTS", "Options", "run"]

COUNTS = {"controller": 3, "drone": 3, "docker": 1, "proxy": 2}
KEYS = tuple(f"key-{number}" for number in range(1, 7))
DOCKER_KEYS = (f"{DOCKER_KEY}-1",)
CLIENTS_OF_A_KEY = 2
# Before the first fault, and at least before the end.
CALM_S = 8.0
# All that a fault leaves behind is over by then: a lost drone's backends, and what is terminated once more.
SETTLED_WITHIN_S = 200.0
NODES_READY_S = 60.0
SUPERVISE_EVERY_S = 2.0

STORED = """
SELECT coalesce(json_agg(json_build_object(
    'backend', b.id, 'status', b.last_status, 'drone', n.name,
    'holds_key', EXISTS (SELECT FROM backend_key k WHERE k.id = b.id), 'ended_from', b.state->>'last_status',
    'states', (SELECT json_agg(json_build_array(s.state->>'status',
        coalesce(s.state->>'reason', s.state->>'message')) ORDER BY s.id)
        FROM backend_state s WHERE s.backend_id = b.id)
)), '[]') FROM backend b JOIN node n ON n.id = b.drone_id
"""
KEPT = """
SELECT id, json_extract(state, '$.status'), (SELECT count(*) FROM event WHERE backend_id = backend.id)
FROM backend
"""
LIVE = "SELECT coalesce(json_agg(id), '[]') FROM backend WHERE last_status <> 'terminated'"
CONNECTED = "SELECT count(*) FROM node WHERE controller IS NOT NULL"


@dataclass(frozen=True)
class Options:
    """What to run. ``planted``: a bug that all programs have; empty: none."""

    folder: Path
    seed: int
    rounds: int
    planted: str = ""
    # Only faults of these kinds, at targets of these roles or names; all by default.
    kinds: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    # Whether each fault may last as long as its kind does at most.
    long: bool = False
    # Whether clients terminate as often as they connect.
    churn: bool = False
    round_s: float = ROUND_S
    counts: dict[str, int] = field(default_factory=lambda: dict(COUNTS))

    def faults(self) -> list[PlannedFault]:
        """Return the faults that the seed draws."""
        names = [f"{role}-{number}" for role, count in self.counts.items() for number in range(1, count + 1)]
        wanted = set(self.roles)
        targets = [name for name in [*names, DATABASE] if not wanted or {name, name.partition("-")[0]} & wanted]
        kinds = [kind for kind in KINDS if not self.kinds or kind.name in self.kinds]
        if self.long:
            kinds = [replace(kind, usual_s=kind.longest_s) for kind in kinds]
        return draw(self.seed, self.rounds, targets, kinds, self.round_s)


class _Run:
    """The state of one run."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.began = boottime()
        self.records: list[Record] = []
        self.cluster = FaultyCluster(options.folder, options.counts, options.planted)
        hosts = self.cluster.hosts
        # A folder of its own, which containers have mounted.
        socket = options.folder / "observer" / "socket"
        socket.parent.mkdir()
        self.observer = Observer(socket, self.began)
        self.keys = KEYS + (DOCKER_KEYS if options.counts["docker"] else ())
        self.clients = Clients(
            [host for name, host in hosts.items() if name.startswith("controller")],
            [host for name, host in hosts.items() if name.startswith("proxy")],
            socket,
            options.seed,
            self.now,
            CHURN_WEIGHTS if options.churn else WEIGHTS,
        )

    def now(self) -> float:
        return round(boottime() - self.began, 4)

    async def carry_out(self, fault: PlannedFault, first_round: float) -> None:
        """Wait for the start of a fault, begin it, and undo it after its time."""
        await asyncio.sleep(max(0.0, first_round + fault.start_s - self.now()))
        self.records.append(
            FaultBegan(self.now(), fault.number, fault.round, fault.kind, fault.target, f"{fault.length_s} s")
        )
        undo = await asyncio.to_thread(fault_kinds.begin, self.cluster, fault)
        try:
            await asyncio.sleep(fault.length_s)
        finally:
            await asyncio.to_thread(undo)
            self.records.append(FaultEnded(self.now(), fault.number))

    async def carry_out_all(self) -> None:
        """Carry out all faults, and return when all are undone."""
        first_round = self.now()
        async with asyncio.TaskGroup() as tasks:
            for fault in self.options.faults():
                tasks.create_task(self.carry_out(fault, first_round))
            tasks.create_task(asyncio.sleep(self.options.rounds * self.options.round_s))

    async def supervise(self) -> None:
        """Start programs that have ended by themselves, until cancelled."""
        while True:
            await asyncio.sleep(SUPERVISE_EVERY_S)
            for part in self.cluster.parts.values():
                await asyncio.to_thread(part.start_again)

    async def until_connected(self) -> None:
        """Return when all drones and proxies are connected."""
        wanted = sum(count for kind, count in self.options.counts.items() if kind != "controller")
        async with asyncio.timeout(NODES_READY_S):
            while await asyncio.to_thread(self.cluster.postgres.query, CONNECTED) != str(wanted):
                await asyncio.sleep(0.2)

    async def settle(self) -> None:
        """Return when every process is recorded and every record has its process, or when that takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLED_WITHIN_S):
                agreed = 0
                while agreed < 3:
                    await asyncio.sleep(1.0)
                    stored = await asyncio.to_thread(self.cluster.postgres.query, LIVE)
                    agrees = bool(stored) and set(json.loads(stored)) == self.observer.alive()
                    agreed = agreed + 1 if agrees else 0

    def look(self) -> Iterator[Record]:
        """Read what is stored at the end."""
        at = self.now()
        yield RunEnded(at, self.options.seed, self.options.rounds)
        for row in json.loads(self.cluster.postgres.query(STORED) or "[]"):
            states = [(status, reason) for status, reason in row.pop("states")]
            yield StoredBackend(at, states=states, **row)
        for drone in self.cluster.of_role("drone"):
            with contextlib.closing(sqlite3.connect(f"file:{drone.store}?mode=ro", uri=True)) as store:
                for backend, status, unacknowledged in store.execute(KEPT).fetchall():
                    yield StoredOnDrone(at, drone.name, backend, status, unacknowledged)


async def run(options: Options) -> History:
    """Run, and write the history to the folder."""
    make_bridge()
    it = _Run(options)
    try:
        await asyncio.to_thread(it.cluster.start)
        await it.until_connected()
        async with asyncio.TaskGroup() as tasks:
            using = tasks.create_task(it.clients.run(it.keys, CLIENTS_OF_A_KEY))
            await asyncio.sleep(CALM_S)
            supervision = tasks.create_task(it.supervise())
            await it.carry_out_all()
            # Clients go on while the cluster recovers.
            await asyncio.sleep(CALM_S)
            using.cancel()
            await it.settle()
            supervision.cancel()
        it.records += it.look()
    finally:
        it.cluster.end()
        it.observer.close()
        for backend in {life.backend for life in it.observer.lives()}:
            remove_control_groups(f"plane-{backend}")
        it.records += [*it.clients.records, *it.observer.lives()]
        write_history(options.folder / "history.jsonl", it.records)
    return History(sorted(it.records, key=lambda record: record.at))
