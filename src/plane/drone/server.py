"""Starts and stops a drone: its state store, its runtime, its connection, and their end in order."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import structlog

from plane.decisions.drones.address import address_warning
from plane.decisions.drones.open_controller import open_controller_warning
from plane.drone.agent import Agent
from plane.drone.backend_manager import BackendManager
from plane.drone.clock import DroneClock
from plane.drone.event_recorder import EventRecorder
from plane.drone.machine_identity import drone_identity
from plane.drone.runtime_choice import Owner, create_runtime
from plane.drone.state_store import StateStore, open_state_store
from plane.drone.watchdog.supervisor import WatchdogSupervisor
from plane.protocol.drone_messages import MessageFromDrone, MessageToDrone
from plane.protocol.errors import ConfigurationError
from plane.protocol.handshake import Extension
from plane.protocol.names import NodeName, Prefix
from plane.protocol.times import DroneTime
from plane.random_ids import random_name
from plane.runtime.base import RuntimeListener
from plane.runtime.process.runtime import ProcessRuntime
from plane.settings import DroneSettings
from plane.tasks import end_tasks, until_one_ends
from plane.transport.node_socket import NodeConnector

__all__ = ["DroneServer", "resolve_name", "start_drone"]

# A drone that ends its backends when it stops gives them this long, then kills them.
STOP_GRACE_S = 3.0
# How long the last events may take to be acknowledged.
LAST_EVENTS_LIMIT_S = 2.0
POLL_S = 0.02

log = structlog.get_logger("plane.drone")


class DroneServer:
    """A drone that runs. ``runtime_name`` is what runs its backends."""

    def __init__(self, runtime_name: str, tasks: list[asyncio.Task[None]]) -> None:
        self.runtime_name = runtime_name
        self._tasks = tasks

    async def wait(self) -> None:
        """Never returns; raises when a part of the drone died."""
        await until_one_ends(self._tasks)


@asynccontextmanager
async def start_drone(settings: DroneSettings) -> AsyncIterator[DroneServer]:
    """A drone that takes work while the block runs.

    At its end its backends run on for its next start where `DroneSettings.backends_outlive_it`, else they are ended.

    Raises:
        ConfigurationError: the state store or the runtime cannot be used; says why.
    """
    async with open_state_store(settings.db_path) as store:
        name = await resolve_name(settings.name, store)
        clock = await _continued_clock(store)
        identity, is_another = await drone_identity(store, settings.db_path, clock_continues=clock.continues)
        if is_another:
            await _forget_backends(store)
        recorder = EventRecorder(store, clock)
        watchdog = WatchdogSupervisor(
            ends_with_drone=not settings.backends_outlive_it,
            output_limit_bytes=settings.log_limit_bytes,
            place=settings.watchdog_place,
        )
        executor = BackendManager(store, recorder, clock, settings.ip, watchdog)
        agent = Agent(store, recorder, executor, clock)
        listener = RuntimeListener(executor.exited, agent.measured, watchdog.locate)
        runtime = executor.runtime = await create_runtime(settings, Owner(name, settings.cluster), listener)
        if settings.backends_outlive_it:
            await executor.adopt_backends()
        else:
            await executor.terminate_former_backends()
        query = f"?pool={quote(settings.pool, safe='')}" if settings.pool else ""
        connector: NodeConnector[MessageToDrone, MessageFromDrone] = NodeConnector(
            settings.controller_url,
            f"/ctrl/c/{settings.cluster}/drone-socket{query}",
            name,
            MessageToDrone,
            agent.session,
            extensions=(Extension.LOGS,),
            identity=identity,
        )
        tasks = [
            asyncio.create_task(connector.run(), name="controller connection"),
            asyncio.create_task(executor.keys.run(), name="keys"),
            asyncio.create_task(executor.run_maintenance(), name="housekeeping"),
            asyncio.create_task(recorder.run(), name="event recorder"),
            asyncio.create_task(runtime.run(), name="runtime"),
            # After the leases of former backends are known: from its start on it is the only watchdog of this store.
            asyncio.create_task(watchdog.run(), name="watchdog"),
        ]
        if warning := address_warning(settings.ip, settings.controller_url.base):
            log.warning(warning)
        url = settings.controller_url
        has_key, runs_processes = url.bearer_token is not None, runtime.name == ProcessRuntime.name
        if warning := open_controller_warning(url.base, has_key=has_key, runs_processes=runs_processes):
            log.warning(warning)
        db = str(settings.db_path or "in memory")
        log.info("drone runs", name=name, cluster=settings.cluster, runtime=runtime.name, db=db)
        try:
            yield DroneServer(runtime.name, tasks)
        finally:
            executor.refuse_work()
            await agent.announce_stopping()
            if settings.backends_outlive_it:
                log.info("drone stops; its backends run on", name=name)
                await executor.leave_all()
                await runtime.close(leave_running=True)
            else:
                log.info("drone stops, and its backends with it", name=name)
                await executor.end_all(STOP_GRACE_S)
                await runtime.close(leave_running=False)
            await _until_acknowledged(store)
            await end_tasks(tasks)


async def _continued_clock(store: StateStore) -> DroneClock:
    """The clock of the drone's former process, or a new one that begins later than that one ended."""
    began = (await store.facts()).get("clock_began_ms")
    clock = DroneClock(
        await store.clock_reading(),
        stored_began=DroneTime(int(began)) if began else None,
        last_known=await store.last_time(),
    )
    if not clock.continues:
        await store.store_facts({"clock_began_ms": str(clock.began.ms)})
        await store.store_clock(clock.reading)
    return clock


async def _forget_backends(store: StateStore) -> None:
    """Forget the backends of a store that another instance used.

    They may run elsewhere, by the drone whose store was copied. What runs here is ended once this drone is accepted
    under its name; what does not run is given up when its key has expired.

    Raises:
        ConfigurationError: the store cannot be written.
    """
    try:
        count = await store.delete_active()
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"--db: the state store cannot be written; free space, start again: {error}"
        ) from error
    if count:
        log.warning("backends of another machine, boot or copy of the state store are not taken over", count=count)


async def resolve_name(wanted: NodeName | None, store: StateStore) -> NodeName:
    """The drone's name from now on: controllers know the backends in its store under it."""
    former = await store.drone_name()
    name = wanted or former or NodeName(random_name(Prefix.DRONE))
    if former is not None and former != name:
        log.warning("controllers know this state store's backends under another name", former=former, name=name)
    if former != name:
        try:
            await store.store_drone_name(name)
        except sqlite3.Error as error:
            # What runs must be taken over also on a full disk.
            log.warning("the drone's name is not stored; give it with --name at the next start", error=str(error))
    return name


async def _until_acknowledged(store: StateStore) -> None:
    """Give the last events a moment to reach a controller; what does not is sent by the next start."""
    try:
        async with asyncio.timeout(LAST_EVENTS_LIMIT_S):
            while await store.has_unacknowledged():
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        log.warning("stopping with events that no controller has acknowledged")
