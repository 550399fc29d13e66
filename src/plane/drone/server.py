"""Start and stop a drone: its state store, runtime, watchdog and connection."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import structlog

from plane.decisions.drones.identity import is_another_instance
from plane.decisions.drones.startup_warnings import is_open_to_backends, is_unreachable_address
from plane.drone.agent import Agent
from plane.drone.backend_manager import BackendManager
from plane.drone.clock import DroneClock
from plane.drone.event_recorder import EventRecorder
from plane.drone.machine_identity import drone_identity, this_machine
from plane.drone.runtime_choice import Owner, create_runtime
from plane.drone.state_store import StateStore, open_state_store
from plane.drone.watchdog.supervisor import WatchdogSupervisor
from plane.protocol.drone_messages import MessageFromDrone, MessageToDrone
from plane.protocol.errors import ConfigurationError
from plane.protocol.handshake import DroneIdentity, Extension
from plane.protocol.names import NodeName, Prefix
from plane.protocol.times import DroneTime
from plane.random_ids import random_name
from plane.runtime.base import Runtime, RuntimeListener
from plane.runtime.process.runtime import ProcessRuntime
from plane.settings import DroneSettings
from plane.tasks import end_tasks, until_one_ends
from plane.tracing.export import start_tracing
from plane.transport.node_socket import NodeConnector

__all__ = ["DroneServer", "resolve_name", "start_drone"]

# A drone that terminates its backends when it stops gives them this long, then kills them.
STOP_GRACE_S = 3.0
# How long a stopping drone waits for the acknowledgement of its last events.
LAST_EVENTS_TIMEOUT_S = 2.0
POLL_INTERVAL_S = 0.02

log = structlog.get_logger("plane.drone")


class DroneServer:
    """A running drone.

    Attributes:
        runtime_name: the name of the runtime that executes its backends.
    """

    def __init__(self, runtime_name: str, tasks: list[asyncio.Task[None]]) -> None:
        self.runtime_name = runtime_name
        self._tasks = tasks

    async def wait(self) -> None:
        """Wait until a part of the drone fails, and raise its error. Never returns normally."""
        await until_one_ends(self._tasks)


@asynccontextmanager
async def start_drone(settings: DroneSettings) -> AsyncIterator[DroneServer]:
    """Run a drone for the duration of the block.

    Afterwards its backends continue for the drone's next process if `DroneSettings.backends_outlive_it`; otherwise they
    are terminated.

    Raises:
        ConfigurationError: the state store or the runtime cannot be used; the message says why.
    """
    async with (
        start_tracing("plane-drone", enabled=settings.traces) as tracer,
        open_state_store(settings.db_path) as store,
    ):
        name = await resolve_name(settings.name, store)
        machine = this_machine(settings.db_path)
        is_another = is_another_instance(await store.facts(), machine)
        clock = await _load_clock(store, is_another=is_another)
        identity = await drone_identity(store, machine, clock_continues=clock.continues)
        if is_another:
            await _abandon_backends(store)
        recorder = EventRecorder(store, clock)
        watchdog = WatchdogSupervisor(
            ends_with_drone=not settings.backends_outlive_it,
            output_limit_bytes=settings.log_limit_bytes,
            place=settings.watchdog_place,
        )
        runtime = await create_runtime(settings, Owner(name, settings.cluster, settings.installation))
        backends = BackendManager(store, recorder, clock, settings.ip, watchdog, runtime, tracer, identity.clock)
        agent = Agent(store, recorder, backends, clock)
        await runtime.start(RuntimeListener(backends.on_exit, agent.on_metrics, watchdog.locate))
        if settings.backends_outlive_it:
            await backends.adopt_backends()
        else:
            await backends.terminate_former_backends()
        tasks = [
            asyncio.create_task(_connector(settings, name, identity, agent).run(), name="controller connection"),
            asyncio.create_task(backends.leases.run(), name="leases"),
            asyncio.create_task(backends.run_maintenance(), name="maintenance"),
            asyncio.create_task(recorder.run(), name="event recorder"),
            asyncio.create_task(runtime.run(), name="runtime"),
            # Started after the leases of former backends are known: it then replaces the former process's watchdog.
            asyncio.create_task(watchdog.run(), name="watchdog"),
        ]
        if settings.metrics_port is not None:
            # Imported here, so that a drone without metrics starts sooner.
            from plane.drone.metrics import DroneMetrics

            metrics = DroneMetrics(store, recorder, backends, agent, watchdog)
            serving = metrics.serve(settings.metrics_host, settings.metrics_port)
            tasks.append(asyncio.create_task(serving, name="metrics"))
        _log_warnings(settings, runtime)
        db = str(settings.db_path or "in memory")
        log.info("drone started", name=name, cluster=settings.cluster, runtime=runtime.name, db=db)
        try:
            yield DroneServer(runtime.name, tasks)
        finally:
            backends.refuse_work()
            await agent.announce_stopping()
            if settings.backends_outlive_it:
                log.info("drone stopping; backends continue", name=name)
                await backends.detach_all()
                await runtime.close(leave_running=True)
            else:
                log.info("drone stopping; terminating backends", name=name)
                await backends.terminate_all(STOP_GRACE_S)
                await runtime.close(leave_running=False)
            await _wait_acknowledged(store)
            await end_tasks(tasks)


def _connector(
    settings: DroneSettings, name: NodeName, identity: DroneIdentity, agent: Agent
) -> NodeConnector[MessageToDrone, MessageFromDrone]:
    query = f"?pool={quote(settings.pool, safe='')}" if settings.pool else ""
    return NodeConnector(
        settings.controller_url,
        f"/ctrl/c/{settings.cluster}/drone-socket{query}",
        name,
        MessageToDrone,
        agent.run_session,
        extensions=(Extension.LOGS,),
        identity=identity,
    )


def _log_warnings(settings: DroneSettings, runtime: Runtime) -> None:
    url = settings.controller_url
    if is_unreachable_address(settings.ip, url.base):
        log.warning("proxies on other machines cannot reach this drone's backends; set --ip", ip=settings.ip)
    has_key, runs_processes = url.bearer_token is not None, runtime.name == ProcessRuntime.name
    if is_open_to_backends(url.base, has_key=has_key, runs_processes=runs_processes):
        log.warning(
            "no API key: backends can control the cluster if the controller on this machine requires none", url=url.base
        )


async def _load_clock(store: StateStore, *, is_another: bool) -> DroneClock:
    """Return the clock of the drone's former process, or store and return a new one that begins later.

    Args:
        is_another: whether another instance has used the store before, so that its clock must not be continued.
    """
    began = (await store.facts()).get("clock_began_ms")
    clock = DroneClock(
        None if is_another else await store.clock_reading(),
        stored_began=DroneTime(int(began)) if began else None,
        last_known=await store.last_time(),
    )
    if not clock.continues:
        await store.store_facts({"clock_began_ms": str(clock.began.ms)})
        await store.store_clock(clock.reading)
    return clock


async def _abandon_backends(store: StateStore) -> None:
    """Delete the backends of a store that another instance used.

    They may run elsewhere, under the drone whose store was copied. Those that run here are orphans, which are ended
    once a controller has accepted this drone. The others are given up when their keys have expired.

    Raises:
        ConfigurationError: the store cannot be written.
    """
    try:
        count = await store.delete_active()
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"--db: the state store cannot be written; free space and start again: {error}"
        ) from error
    if count:
        log.warning("state store is from another machine, boot or copy; backends not adopted", count=count)


async def resolve_name(wanted: NodeName | None, store: StateStore) -> NodeName:
    """Return the drone's name, and store it: controllers know the stored backends under this name."""
    former = await store.drone_name()
    name = wanted or former or NodeName(random_name(Prefix.DRONE))
    if former is not None and former != name:
        log.warning("drone name differs from the stored name", former=former, name=name)
    if former != name:
        try:
            await store.store_drone_name(name)
        except sqlite3.Error as error:
            # Backends must be adopted on a full disk too.
            log.warning("drone name not persisted; pass it with --name at the next start", name=name, error=str(error))
    return name


async def _wait_acknowledged(store: StateStore) -> None:
    """Give the last events a moment to be acknowledged. The drone's next process resends the others."""
    try:
        async with asyncio.timeout(LAST_EVENTS_TIMEOUT_S):
            while await store.has_unacknowledged():
                await asyncio.sleep(POLL_INTERVAL_S)
    except TimeoutError:
        log.warning("stopping with unacknowledged events")
