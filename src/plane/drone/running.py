"""Starts and stops a drone: its state store, its runtime, its connection, and their end in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import structlog

from plane.drone.agent import Agent
from plane.drone.clock import DroneClock
from plane.drone.executor import Executor
from plane.drone.state_store import StateStore, open_state_store
from plane.ownership import end_tasks, until_one_ends
from plane.protocol.drone_messages import MessageFromDrone, MessageToDrone
from plane.protocol.errors import ConfigurationError
from plane.runtime.base import ExitListener, Runtime
from plane.runtime.docker import DockerRuntime, engine_answers
from plane.runtime.process import ProcessRuntime, bubblewrap_works
from plane.settings import DroneSettings, RuntimeKind
from plane.transport.node_socket import NodeConnector

__all__ = ["RunningDrone", "running_drone"]

# A drone that is stopped gives its backends this long, then kills them.
STOP_GRACE_S = 3.0
# How long the last events may take to be acknowledged.
LAST_EVENTS_LIMIT_S = 2.0
POLL_S = 0.02

log = structlog.get_logger("plane.drone")


class RunningDrone:
    """A drone that runs. ``runtime_name`` is what runs its backends."""

    def __init__(self, runtime_name: str, tasks: list[asyncio.Task[None]]) -> None:
        self.runtime_name = runtime_name
        self._tasks = tasks

    async def wait(self) -> None:
        """Never returns; raises when a part of the drone died."""
        await until_one_ends(self._tasks)


@asynccontextmanager
async def running_drone(settings: DroneSettings) -> AsyncIterator[RunningDrone]:
    """A drone that takes work while the block runs; at its end all its backends are ended.

    Raises:
        ConfigurationError: the state store or the runtime cannot be used; says why.
    """
    clock = DroneClock()
    async with open_state_store(settings.db_path) as store:
        executor = Executor(store, clock, settings.ip)
        executor.runtime = await _make_runtime(settings, executor.exited)
        await executor.forget_former_backends()
        agent = Agent(store, executor, clock)
        query = f"?pool={quote(settings.pool, safe='')}" if settings.pool else ""
        connector: NodeConnector[MessageToDrone, MessageFromDrone] = NodeConnector(
            settings.controller_url,
            f"/ctrl/c/{settings.cluster}/drone-socket{query}",
            settings.name,
            MessageToDrone,
            agent.session,
        )
        tasks = [
            asyncio.create_task(connector.run(), name="controller connection"),
            asyncio.create_task(executor.keys.run(), name="keys"),
        ]
        log.info("drone runs", name=settings.name, cluster=settings.cluster, runtime=executor.runtime.name)
        try:
            yield RunningDrone(executor.runtime.name, tasks)
        finally:
            log.info("drone stops", name=settings.name)
            await executor.end_all(STOP_GRACE_S)
            await executor.runtime.close()
            await _until_acknowledged(store)
            await end_tasks(tasks)


async def _make_runtime(settings: DroneSettings, on_exit: ExitListener) -> Runtime:
    kind = settings.runtime
    answers = kind is not RuntimeKind.PROCESS and await engine_answers(settings.docker_socket)
    if kind is RuntimeKind.DOCKER and not answers:
        raise ConfigurationError(
            f"no Docker engine answers at {settings.docker_socket}; start it, name another socket with "
            "--docker-socket, or use --runtime process"
        )
    if answers:
        runtime = DockerRuntime(
            on_exit,
            settings.docker_socket,
            grace_s=settings.soft_terminate_grace_s,
            startup_limit_s=settings.startup_timeout_s,
        )
        await runtime.start()
        return runtime
    bubblewrap = await bubblewrap_works()
    log.info("backends are processes", bubblewrap=bubblewrap)
    return ProcessRuntime(
        on_exit,
        bubblewrap=bubblewrap,
        grace_s=settings.soft_terminate_grace_s,
        startup_limit_s=settings.startup_timeout_s,
    )


async def _until_acknowledged(store: StateStore) -> None:
    """Give the last events a moment to reach a controller; what does not is sent by the next start."""
    try:
        async with asyncio.timeout(LAST_EVENTS_LIMIT_S):
            while await store.has_unacknowledged():
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        log.warning("stopping with events that no controller has acknowledged")
