"""The runtime that executes backends as Docker containers.

A backend's container has the name ``plane-{backend}`` and the label ``dev.plane.backend``; its port 8080 is published
on a random port. This file decides when containers are started, watched and ended; `container` has the operations.
Rules: `docs/reference/protocol/drone.md`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp
import structlog

from plane import timing
from plane.decisions.backends.port_selection import PortRange
from plane.decisions.backends.resource_usage import CpuCounter
from plane.protocol.logs import LogPage
from plane.protocol.names import container_name
from plane.protocol.spawn import DockerExecutable, Network
from plane.runtime.base import AdoptionResult, BackendFailed, RuntimeListener, SpawnRequest, check_deadline
from plane.runtime.docker.config import (
    LABEL,
    PORT,
    ContainerDefaults,
    read_executable,
)
from plane.runtime.docker.container import (
    container_exit_message,
    container_names,
    container_target,
    create_container,
    kill_container,
    last_lines,
    start_container,
)
from plane.runtime.docker.engine import CALL_TIMEOUT_S, DockerEngine, EngineRefused
from plane.runtime.docker.images import DockerImages
from plane.runtime.docker.logs import container_lines
from plane.runtime.docker.metrics import measure_containers
from plane.runtime.docker.pruner import prune_containers
from plane.runtime.in_flight_starts import InFlightStarts
from plane.runtime.kill_target import ContainerTarget
from plane.runtime.logs.collector import LogCollector, LogsUnavailable
from plane.runtime.logs.files import page_of
from plane.runtime.mounts import Mounts
from plane.runtime.network.ports import Ports, port_range_of_machine
from plane.runtime.network.relays import ContainerRelays
from plane.runtime.readiness import wait_until_ready
from plane.tasks import OwnedTasks
from plane.timing import SOFT_TERMINATE_GRACE_S, STARTUP_TIMEOUT_S

__all__ = ["DockerRuntime"]

RESUBSCRIBE_DELAY_S = 0.5
RETRY_INTERVAL_S = 1.0
# How often the running containers are listed, in case an event was lost.
LIST_INTERVAL_S = 10.0
LOGS_POLL_INTERVAL_S = 0.5

log = structlog.get_logger("plane.runtime")


class DockerRuntime:
    """Executes backends as containers.

    Args:
        logs: retains the output of ended backends.
        socket: the engine's Unix socket.
        defaults: part of every container's configuration.
        mount_base: the folder below which mounts are; None: nothing is mounted.
        prune_images: whether to remove unused images.
        prune_after_s: how long after its end a stopped container is removed.
        ip: the address where backends are reached; None: all addresses.
        ports: range of the ports that lead to containers without a network; None: the machine's default.
        grace_s: from SIGTERM to SIGKILL.
        startup_timeout_s: how long a backend may take to become ready.
        call_timeout_s: how long the engine may take to respond.
    """

    name = "docker"

    def __init__(
        self,
        logs: LogCollector,
        socket: Path,
        *,
        defaults: ContainerDefaults,
        mount_base: Path | None = None,
        prune_images: bool = False,
        prune_after_s: float = 0.0,
        ip: str | None = None,
        ports: PortRange | None = None,
        grace_s: float = SOFT_TERMINATE_GRACE_S,
        startup_timeout_s: float = STARTUP_TIMEOUT_S,
        call_timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self._listener: RuntimeListener
        self._logs = logs
        self._socket = socket.resolve()
        self._engine = DockerEngine(socket, call_timeout_s)
        self._images = DockerImages(self._engine)
        self._defaults = defaults
        self._mounts = Mounts(mount_base)
        self._prune_images = prune_images
        self._prune_after_s = prune_after_s
        self._ip = ip
        self._relays = ContainerRelays(Ports(ports or port_range_of_machine()), ip, self._relay_lost)
        self._grace_s = grace_s
        self._startup_timeout_s = startup_timeout_s
        # Backends whose exit has not been reported, with the last CPU reading of each.
        self._running: dict[str, CpuCounter] = {}
        self._starting = InFlightStarts()
        # Ended backends whose output is being stored; until it is stored, readers get it from the engine.
        self._ending: set[str] = set()
        # Backends that must not run, whose containers are not known to be removed.
        self._pending_removal: set[str] = set()
        self._tasks = OwnedTasks(lambda error: log.error("container task failed", exc_info=error))
        self._subscribed = asyncio.Event()

    async def start(self, listener: RuntimeListener) -> None:
        """Subscribe to the engine's events; see `plane.runtime.base.Runtime.start`.

        Raises:
            TimeoutError: the engine does not respond.
        """
        self._listener = listener
        self._tasks.start(self._follow_events())
        async with asyncio.timeout(self._engine.timeout_s):
            await self._subscribed.wait()

    async def prepare(self, executable: Any) -> DockerExecutable:
        """Check the executable and pull its image; see `plane.runtime.base.Runtime.prepare`."""
        parsed = read_executable(executable)
        if parsed.network is Network.NONE and os.geteuid() != 0:
            raise BackendFailed(
                "executable.network: only a drone that runs as root can forward a port to a container without a "
                "network; leave network out, or give network_name"
            )
        await self._images.provide(parsed)
        return parsed

    async def spawn(self, request: SpawnRequest) -> int:
        """Start the container; see `plane.runtime.base.Runtime.spawn`."""
        parsed = read_executable(request.executable)
        return await self._starting.run(request.backend_id, self._start(request, parsed))

    def extend_deadline(self, backend_id: str, hard_deadline_ns: int) -> None:
        """Do nothing: the drone's watchdog enforces the deadlines of containers."""

    async def _start(self, request: SpawnRequest, executable: DockerExecutable) -> int:
        backend_id = request.backend_id
        self._listener.on_location(backend_id, container_target(self._socket, backend_id))
        folder = await self._mounts.open(executable.mount, request.key)
        try:
            await create_container(self._engine, request, executable, self._defaults, folder)
            self._running[backend_id] = CpuCounter()
            check_deadline(request.hard_deadline_ns)
            has_network = executable.network is not Network.NONE
            name = container_name(backend_id)
            inspected, port = await start_container(self._engine, name, self._ip, has_network=has_network)
            target = container_target(self._socket, backend_id, inspected)
            self._listener.on_location(backend_id, target)
            if folder is not None:
                await self._mounts.check(inspected["State"]["Pid"], folder)
            return self._start_relay(backend_id, target) if port is None else port
        except BaseException as error:
            # No exit is reported for a failed start. The container may run all the same: the engine may just be slow.
            self._running.pop(backend_id, None)
            self._relays.ended(backend_id)
            if not (isinstance(error, EngineRefused) and error.status == 409):
                self._pending_removal.add(backend_id)
                self._tasks.start(self._remove_pending())
            raise
        finally:
            if folder is not None:
                os.close(folder)

    def _start_relay(self, backend_id: str, target: ContainerTarget) -> int:
        if not target.pid:
            raise BackendFailed(
                "executable.network: the container's processes are not visible on the drone's machine, so no port can "
                "be forwarded to them; use an engine of that machine, or network_name"
            )
        return self._relays.start(backend_id, PORT, target.pid, target.started_at)

    async def _relay_lost(self, backend_id: str) -> None:
        """Kill a container that can no longer be reached, unless it has just ended."""
        await self._report_if_ended(backend_id)
        if backend_id in self._running:
            log.error("network relay ended; killing its backend", backend=backend_id)
            await self.terminate(backend_id, hard=True)

    def handle(self, backend_id: str) -> Any:
        """Return the relay's handle, or None; the container is found by its name."""
        return self._relays.handle(backend_id)

    async def adopt(self, backend_id: str, handle: Any) -> AdoptionResult:
        """Find the container again; see `plane.runtime.base.Runtime.adopt`."""
        self._listener.on_location(backend_id, container_target(self._socket, backend_id))
        found = await self._engine.inspect(container_name(backend_id))
        if found is None:
            return AdoptionResult(running=False, message="its container was removed while its drone was restarted")
        if found["State"]["Status"] in ("exited", "dead", "created"):
            message = container_exit_message(found["State"], await self._store_output(backend_id))
            await self.remove_orphan(backend_id)
            return AdoptionResult(running=False, exit_code=found["State"]["ExitCode"], message=message)
        self._running[backend_id] = CpuCounter()
        self._listener.on_location(backend_id, container_target(self._socket, backend_id, found))
        if not self._relays.adopt(backend_id, handle):
            self._tasks.start(self._relay_lost(backend_id))
        return AdoptionResult(running=True)

    async def wait_for_backend(self, backend_id: str, host: str, port: int) -> None:
        """Return once the backend is ready; see `plane.runtime.base.Runtime.wait_for_backend`."""
        await wait_until_ready(host, port, self._startup_timeout_s)

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        """Terminate the container; see `plane.runtime.base.Runtime.terminate`."""
        await self._starting.wait(backend_id)
        if backend_id not in self._running:
            return False
        if not hard:
            self._tasks.start(self._stop(backend_id))
        elif not await kill_container(self._engine, backend_id):
            # It has ended. If its exit has not been reported, that happens soon.
            self._tasks.start(self._report_if_ended(backend_id))
        return True

    async def _stop(self, backend_id: str) -> None:
        """Ask the engine to stop the container until it has ended; the engine kills it after the grace period."""
        kill_at = time.monotonic() + self._grace_s
        while backend_id in self._running:
            left_s = max(0, round(kill_at - time.monotonic()))
            path = f"containers/{container_name(backend_id)}/stop"
            timeout_s = left_s + self._engine.timeout_s
            try:
                params = {"t": str(left_s)}
                async with self._engine.request("stop the container", "POST", path, timeout_s, params=params):
                    pass
                await self._report_if_ended(backend_id)
            except EngineRefused as error:
                if error.status == 404:
                    await self._report_exit(backend_id, None)
                log.warning("container not stopped; retrying", backend=backend_id, error=str(error))
            except BackendFailed as error:
                log.warning("container not stopped; retrying", backend=backend_id, error=str(error))
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def remove_orphan(self, backend_id: str) -> None:
        """Remove the backend's container, running or not."""
        await self._engine.remove(container_name(backend_id), force=True)

    async def remove_orphans(self, known: Collection[str]) -> list[str]:
        """Remove the containers with this drone's labels; see `plane.runtime.base.Runtime.remove_orphans`."""
        labels = [f"{name}={value}" for name, value in self._defaults.labels.items()]
        names = await container_names(self._engine, labels, stopped=True)
        orphans = names - {container_name(backend_id) for backend_id in known}
        for name in orphans:
            await self._engine.remove(name, force=True)
        return sorted(orphans)

    async def _remove_pending(self) -> None:
        for backend_id in list(self._pending_removal):
            try:
                await self.remove_orphan(backend_id)
            except BackendFailed as error:
                log.warning("container not removed; retrying", backend=backend_id, error=str(error))
            else:
                self._pending_removal.discard(backend_id)

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """Read from the engine while the backend runs, then from files; see `plane.runtime.base.Runtime.read_logs`."""
        end = time.monotonic() + wait_s
        while backend_id in self._running:
            try:
                name = container_name(backend_id)
                lines = await container_lines(self._engine, name, after, tail, running=True)
            except EngineRefused as error:
                if error.status == 404:
                    break
                raise LogsUnavailable(str(error)) from error
            except BackendFailed as error:
                raise LogsUnavailable(str(error)) from error
            if lines or time.monotonic() >= end:
                return LogPage(page_of(lines), ended=False)
            await asyncio.sleep(LOGS_POLL_INTERVAL_S)
        return await self._logs.read(backend_id, after, tail, 0.0)

    async def run(self) -> None:
        """Check what runs, measure and prune until cancelled."""
        collecting = asyncio.create_task(self._logs.run())
        next_prune = next_measure = time.monotonic() + timing.METRICS_INTERVAL_S
        next_list = 0.0
        next_prune += timing.PRUNE_INTERVAL_S
        try:
            while not collecting.done():
                now = time.monotonic()
                try:
                    if now >= next_list:
                        next_list = now + LIST_INTERVAL_S
                        await self._find_ended()
                    if now >= next_measure:
                        next_measure = now + timing.METRICS_INTERVAL_S
                        self._relays.expire_ports()
                        await measure_containers(self._engine, self._started(), self._listener.on_metrics)
                    if now >= next_prune:
                        next_prune = now + timing.PRUNE_INTERVAL_S
                        await self._prune()
                except BackendFailed as error:
                    log.warning("periodic check of the Docker engine failed; retrying", error=str(error))
                await asyncio.wait([collecting], timeout=RETRY_INTERVAL_S)
            collecting.result()
        finally:
            collecting.cancel()
            await asyncio.wait([collecting])

    def _started(self) -> dict[str, CpuCounter]:
        """Return the running backends whose start is complete."""
        return {backend: counter for backend, counter in self._running.items() if backend not in self._starting}

    async def _find_ended(self) -> None:
        """Report the exits of containers that ended without an event."""
        if self._pending_removal:
            await self._remove_pending()
        if not self._running:
            return
        # Taken before the list: what is started later may not be in it.
        expected = set(self._running)
        names = await container_names(self._engine)
        for backend_id in expected:
            if container_name(backend_id) not in names and backend_id not in self._starting:
                await self._report_if_ended(backend_id)

    async def _prune(self) -> None:
        in_use = {container_name(backend_id) for backend_id in {*self._running, *self._starting}}
        await prune_containers(self._engine, self._defaults.labels, in_use, self._prune_after_s)
        if self._prune_images:
            await self._images.prune()

    async def close(self, *, leave_running: bool) -> None:
        """Remove the containers, unless they are left for the drone's next process, and close all connections."""
        await self._starting.wait_all()
        if not leave_running:
            for backend_id in list(self._running):
                try:
                    await self.remove_orphan(backend_id)
                except BackendFailed as error:
                    log.warning("container not removed", backend=backend_id, error=str(error))
        await self._tasks.end()
        await self._relays.close()
        await self._images.close()
        await self._engine.close()
        self._logs.close()

    async def _follow_events(self) -> None:
        """Follow exit events. Subscribe again after a lost connection, then check what has ended meanwhile."""
        client = self._engine.client
        while True:
            events: Any = client.events.subscribe(create_task=False)  # type: ignore[no-untyped-call]  # aiodocker
            running = asyncio.create_task(client.events.run(filters={"label": [LABEL], "event": ["die"]}))
            try:
                self._subscribed.set()
                for backend_id in self._started():
                    await self._report_if_ended(backend_id)
                while (event := await events.get()) is not None:
                    name = event["Actor"]["Attributes"]["name"].removeprefix("plane-")
                    if name in self._running and name not in self._starting:
                        self._tasks.start(self._report_if_ended(name))
            except (OSError, aiohttp.ClientError, aiodocker.DockerError, BackendFailed) as error:
                log.warning("event stream of the Docker engine interrupted", error=str(error) or type(error).__name__)
            finally:
                running.cancel()
                await asyncio.wait([running])
            await asyncio.sleep(RESUBSCRIBE_DELAY_S)

    async def _report_if_ended(self, backend_id: str) -> None:
        try:
            found = await self._engine.inspect(container_name(backend_id))
        except BackendFailed as error:
            log.warning("container state unknown; retrying", backend=backend_id, error=str(error))
            return
        if found is None:
            await self._report_exit(backend_id, None)
        elif found["State"]["Status"] in ("exited", "dead"):
            await self._report_exit(backend_id, found["State"])

    async def _report_exit(self, backend_id: str, state: dict[str, Any] | None) -> None:
        """Report an exit once, and remove the container. ``state`` None: the container is already removed."""
        if backend_id not in self._running or backend_id in self._ending:
            return
        code = None if state is None else int(state["ExitCode"])
        message: str | None = "its container was removed"
        if state is not None:
            self._ending.add(backend_id)
            try:
                message = container_exit_message(state, await self._store_output(backend_id))
            finally:
                self._ending.discard(backend_id)
        del self._running[backend_id]
        self._relays.ended(backend_id)
        log.info("container ended", backend=backend_id, exit_code=code)
        self._listener.on_exit(backend_id, code, message)
        self._pending_removal.add(backend_id)
        await self._remove_pending()

    async def _store_output(self, backend_id: str) -> str:
        """Store a container's output before it is removed. Return the end of the output."""
        lines = await last_lines(self._engine, container_name(backend_id))
        texts, times_ns = [line.text.encode() for line in lines], [line.time_ns for line in lines]
        return await self._logs.store(backend_id, texts, times_ns)
