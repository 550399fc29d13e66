"""Backends as Docker containers: the runtime where an engine answers.

Container ``plane-{backend}``, label ``dev.plane.backend``, port 8080 published on a random port. Rules: page 4,
"Docker". Here is what starts, watches and ends containers; configuration, images and output have files of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp
import structlog

from plane import timing
from plane.decisions.backends.exec_limits import container_exec_hint
from plane.decisions.backends.port_selection import PortRange
from plane.decisions.backends.resource_usage import CpuCounter, container_metrics
from plane.protocol.backend_state import OUTPUT_MARKER
from plane.protocol.keys import AcquiredKey
from plane.protocol.logs import LogPage
from plane.protocol.names import container_name
from plane.protocol.spawn import DockerExecutable, Network
from plane.runtime.base import AdoptionResult, BackendFailed, RuntimeListener, check_deadline
from plane.runtime.docker.config import (
    CLUSTER_LABEL,
    DRONE_LABEL,
    LABEL,
    PORT,
    ContainerDefaults,
    container_config,
    published_port,
    read_executable,
)
from plane.runtime.docker.engine import CALL_LIMIT_S, DockerEngine, EngineRefused
from plane.runtime.docker.images import DockerImages
from plane.runtime.docker.logs import container_lines
from plane.runtime.docker.pruner import prune_containers
from plane.runtime.in_flight_starts import Starts
from plane.runtime.kill_target import ContainerTarget
from plane.runtime.logs.collector import LogCollector, LogsUnavailable
from plane.runtime.logs.files import page_of
from plane.runtime.mounts import open_mount, real_path
from plane.runtime.network.ports import Ports, port_range_of_machine
from plane.runtime.network.relays import ContainerRelays
from plane.runtime.process.procfs import start_time
from plane.runtime.readiness import wait_until_ready
from plane.tasks import OwnedTasks
from plane.timing import SOFT_TERMINATE_GRACE_S, STARTUP_TIMEOUT_S

__all__ = ["DockerRuntime"]

PORT_TRIES = 20
PORT_RETRY_S = 0.05
RESUBSCRIBE_S = 0.5
RETRY_S = 1.0
# How often the engine is asked what runs, in case that it told of an end when nobody listened.
LOOK_INTERVAL_S = 10.0
# Before an exit is told, its last output is read; an engine that hangs must not keep it back for long.
LAST_OUTPUT_LIMIT_S = 5.0
# What of a container's output is kept after it is removed.
LAST_LINES = 5_000
LAST_BYTES = 4 * 1024 * 1024
LOGS_POLL_S = 0.5
# Containers that are measured at the same time.
MEASURED_AT_ONCE = 8

log = structlog.get_logger("plane.runtime")


class DockerRuntime:
    """Runs backends as containers. `start` before anything else.

    Args:
        listener: told of each exit, and what is used.
        logs: keeps the output of what has ended.
        socket: the engine's Unix socket.
        defaults: what is asked for with every container.
        mount_base: the folder below which mounts are; None: none is done.
        prune_images: remove images that nobody uses.
        prune_after_s: remove stopped containers this long after their end.
        ip: where containers are reached; None: at all addresses.
        ports: that lead to containers without a network; None: the machine's default.
        grace_s: from SIGTERM to SIGKILL.
        startup_limit_s: until a backend must answer HTTP.
        call_limit_s: how long the engine may take to answer.
    """

    name = "docker"

    def __init__(
        self,
        listener: RuntimeListener,
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
        startup_limit_s: float = STARTUP_TIMEOUT_S,
        call_limit_s: float = CALL_LIMIT_S,
    ) -> None:
        self._listener = listener
        self._logs = logs
        self._socket = socket.resolve()
        self._engine = DockerEngine(socket, call_limit_s)
        self._images = DockerImages(self._engine)
        self._defaults = defaults
        self._mount_base = mount_base
        self._prune_images = prune_images
        self._prune_after_s = prune_after_s
        self._ip = ip
        self._relays = ContainerRelays(Ports(ports or port_range_of_machine()), ip, self._relay_lost)
        self._grace_s = grace_s
        self._startup_limit_s = startup_limit_s
        # Containers whose exit has not been told yet, with the CPU time that was told last.
        self._running: dict[str, CpuCounter] = {}
        self._starting = Starts()
        # Those of them whose output is being kept; until it is, readers get it from the engine.
        self._ending: set[str] = set()
        # Containers of which it is not known whether they run, and that must not.
        self._doomed: set[str] = set()
        self._tasks = OwnedTasks(lambda error: log.error("looking after a container failed", exc_info=error))
        self._subscribed = asyncio.Event()

    async def start(self) -> None:
        """Begin to listen to the engine's events; returns once it does."""
        self._tasks.start(self._listen())
        async with asyncio.timeout(self._engine.limit_s):
            await self._subscribed.wait()

    async def prepare(self, executable: Any) -> None:
        """Check the executable and pull its image; see `plane.runtime.base.Runtime.prepare`."""
        wanted = read_executable(executable)
        if wanted.network is Network.NONE and os.geteuid() != 0:
            raise BackendFailed(
                "executable.network: only a drone that runs as root can lead a port to a container without a network; "
                "leave network out, or give network_name"
            )
        await self._images.provide(wanted)

    async def spawn(
        self,
        backend_id: str,
        executable: Any,
        key: AcquiredKey | None,
        static_token: str | None,
        not_after_ns: int | None = None,
    ) -> int:
        """Start the container; see `plane.runtime.base.Runtime.spawn`."""
        wanted = read_executable(executable)
        start = self._start(backend_id, wanted, key, static_token, not_after_ns)
        return await self._starting.run(backend_id, start)

    def extend(self, backend_id: str, hard_deadline_ns: int) -> None:
        """The drone's watchdog knows; see `plane.runtime.base.Runtime.extend`."""

    async def _start(
        self,
        backend_id: str,
        wanted: DockerExecutable,
        key: AcquiredKey | None,
        static_token: str | None,
        not_after_ns: int | None,
    ) -> int:
        self._listener.located(backend_id, self._target(backend_id))
        folder = open_mount(self._mount_base, wanted.mount, key)
        name = container_name(backend_id)
        try:
            mount = None if folder is None else real_path(folder)
            config = container_config(backend_id, wanted, key, static_token, self._defaults, mount)
            await self._engine.call(
                "create the container", "POST", "containers/create", params={"name": name}, json=config
            )
            self._running[backend_id] = CpuCounter()
            check_deadline(not_after_ns)
            await self._engine.call("start the container", "POST", f"containers/{name}/start")
            inspected, port = await self._published(name, has_network=wanted.network is not Network.NONE)
            target = self._target(backend_id, inspected)
            self._listener.located(backend_id, target)
            if folder is not None:
                _check_mounted(inspected["State"]["Pid"], folder)
            if port is None:
                port = self._lead_to(backend_id, target)
            return port
        except BaseException as error:
            # No exit is told of what failed here. It may run all the same: the engine may only have been late.
            self._running.pop(backend_id, None)
            self._relays.ended(backend_id)
            if not (isinstance(error, EngineRefused) and error.status == 409):
                self._doomed.add(backend_id)
                self._tasks.start(self._remove_doomed())
            raise
        finally:
            if folder is not None:
                os.close(folder)

    async def _published(self, container: str, *, has_network: bool) -> tuple[dict[str, Any], int | None]:
        """The container, and its port once the engine knows it; it may need a moment."""
        for _ in range(PORT_TRIES):
            found = await self._engine.inspect(container)
            if found is not None and found["State"]["Status"] in ("exited", "dead"):
                lines = await self._last_lines(container)
                raise BackendFailed(_message(found["State"], "\n".join(line.text for line in lines[-20:])) or "ended")
            if found is not None and not has_network:
                return found, None
            if found is not None and (port := published_port(found, self._ip)):
                return found, port
            await asyncio.sleep(PORT_RETRY_S)
        raise BackendFailed("the Docker engine published no port for the container; does its network allow that?")

    def _lead_to(self, backend_id: str, target: ContainerTarget) -> int:
        if not target.pid:
            raise BackendFailed(
                "executable.network: the container's processes cannot be seen here, so no port can lead to them; use "
                "an engine of the drone's own machine, or network_name"
            )
        return self._relays.start(backend_id, PORT, target.pid, target.started_at)

    async def _relay_lost(self, backend_id: str) -> None:
        """Kill a container that nobody can reach any more, unless it has just ended."""
        await self._tell_if_ended(backend_id)
        if backend_id in self._running:
            log.error("network relay ended; its backend is killed", backend=backend_id)
            await self.terminate(backend_id, hard=True)

    def handle(self, backend_id: str) -> Any:
        """The container's name says it all, but for a relay; see `plane.runtime.base.Runtime.handle`."""
        return self._relays.handle(backend_id)

    async def adopt(self, backend_id: str, handle: Any) -> AdoptionResult:
        """Find the container again; see `plane.runtime.base.Runtime.adopt`."""
        self._listener.located(backend_id, self._target(backend_id))
        found = await self._engine.inspect(container_name(backend_id))
        if found is None:
            return AdoptionResult(running=False, message="its container was removed while its drone was restarted")
        if found["State"]["Status"] in ("exited", "dead", "created"):
            message = _message(found["State"], await self._keep_output(backend_id))
            await self.remove_orphan(backend_id)
            return AdoptionResult(running=False, exit_code=found["State"]["ExitCode"], message=message)
        self._running[backend_id] = CpuCounter()
        self._listener.located(backend_id, self._target(backend_id, found))
        if not self._relays.adopt(backend_id, handle):
            self._tasks.start(self._relay_lost(backend_id))
        return AdoptionResult(running=True)

    def _target(self, backend_id: str, inspected: dict[str, Any] | None = None) -> ContainerTarget:
        """Where its processes are. ``inspected``: what the engine says of the container that runs."""
        pid = _own_pid(inspected) if inspected is not None else 0
        return ContainerTarget(str(self._socket), container_name(backend_id), pid, start_time(pid) if pid else 0)

    async def wait_for_backend(self, backend_id: str, host: str, port: int) -> None:
        """Return once it answers; see `plane.runtime.base.Runtime.wait_for_backend`."""
        await wait_until_ready(host, port, self._startup_limit_s)

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        """End the container; see `plane.runtime.base.Runtime.terminate`."""
        await self._starting.over(backend_id)
        if backend_id not in self._running:
            return False
        if not hard:
            self._tasks.start(self._stop(backend_id))
        elif not await self._kill(backend_id):
            # It has ended, which is told of soon, if it has not been.
            self._tasks.start(self._tell_if_ended(backend_id))
        return True

    async def _stop(self, backend_id: str) -> None:
        """Ask it to stop, however often that takes; the engine kills it after the grace."""
        kill_at = time.monotonic() + self._grace_s
        while backend_id in self._running:
            left_s = max(0, round(kill_at - time.monotonic()))
            path = f"containers/{container_name(backend_id)}/stop"
            try:
                limit_s = left_s + self._engine.limit_s
                async with self._engine.answer("stop the container", "POST", path, limit_s, params={"t": str(left_s)}):
                    pass
                await self._tell_if_ended(backend_id)
            except EngineRefused as error:
                if error.status == 404:
                    await self._tell_exit(backend_id, None)
                log.warning("container not stopped", backend=backend_id, error=str(error))
            except BackendFailed as error:
                log.warning("container not stopped; trying again", backend=backend_id, error=str(error))
            await asyncio.sleep(RETRY_S)

    async def _kill(self, backend_id: str) -> bool:
        """False: it was not running."""
        try:
            await self._engine.call("kill the container", "POST", f"containers/{container_name(backend_id)}/kill")
        except EngineRefused as error:
            if error.status in (404, 409):
                return False
            raise
        return True

    async def remove_orphan(self, backend_id: str) -> None:
        """Remove the backend's container, running or not."""
        await self._engine.remove(container_name(backend_id), force=True)

    async def remove_orphans(self, known: Collection[str]) -> list[str]:
        """Remove the containers with this drone's labels; see `plane.runtime.base.Runtime.remove_orphans`."""
        labels = [f"{DRONE_LABEL}={self._defaults.drone}", f"{CLUSTER_LABEL}={self._defaults.cluster}"]
        params = {"filters": json.dumps({"label": [LABEL, *labels]}), "all": "true"}
        listed = await self._engine.call("list containers", "GET", "containers/json", params=params)
        names = {name.lstrip("/") for container in listed or () for name in container["Names"]}
        orphans = names - {container_name(backend_id) for backend_id in known}
        for name in orphans:
            await self._engine.remove(name, force=True)
        return sorted(orphans)

    async def _remove_doomed(self) -> None:
        for backend_id in list(self._doomed):
            try:
                await self.remove_orphan(backend_id)
            except BackendFailed as error:
                log.warning("container not removed; trying again", backend=backend_id, error=str(error))
            else:
                self._doomed.discard(backend_id)

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """From the engine while it runs, then from files; see `plane.runtime.base.Runtime.read_logs`."""
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
            await asyncio.sleep(LOGS_POLL_S)
        return await self._logs.read(backend_id, after, tail, 0.0)

    async def run(self) -> None:
        """Look what runs, measure, prune; until cancelled."""
        keeping = asyncio.create_task(self._logs.run())
        next_prune = next_measure = time.monotonic() + timing.METRICS_INTERVAL_S
        next_look = 0.0
        next_prune += timing.PRUNE_INTERVAL_S
        try:
            while not keeping.done():
                now = time.monotonic()
                try:
                    if now >= next_look:
                        next_look = now + LOOK_INTERVAL_S
                        await self._look()
                    if now >= next_measure:
                        next_measure = now + timing.METRICS_INTERVAL_S
                        self._relays.expire_ports()
                        await self._measure()
                    if now >= next_prune:
                        next_prune = now + timing.PRUNE_INTERVAL_S
                        await self._prune()
                except BackendFailed as error:
                    log.warning("the Docker engine cannot be looked after", error=str(error))
                await asyncio.wait([keeping], timeout=RETRY_S)
            keeping.result()
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])

    async def _look(self) -> None:
        """Find what has ended without being told."""
        if self._doomed:
            await self._remove_doomed()
        if not self._running:
            return
        expected = set(self._running)
        filters = '{"label":["' + LABEL + '"]}'
        listed = await self._engine.call("list containers", "GET", "containers/json", params={"filters": filters})
        names = {name.lstrip("/") for container in listed for name in container["Names"]}
        for backend_id in expected:
            if container_name(backend_id) not in names and backend_id not in self._starting:
                await self._tell_if_ended(backend_id)

    async def _measure(self) -> None:
        """Ask for one sample of each that runs; a few at a time, however many there are."""
        waiting = iter([item for item in self._running.items() if item[0] not in self._starting])

        async def measure_some() -> None:
            for backend_id, clock in waiting:
                params = {"stream": "false", "one-shot": "true"}
                path = f"containers/{container_name(backend_id)}/stats"
                try:
                    sample = await self._engine.call("measure the container", "GET", path, params=params)
                except EngineRefused:
                    # It has just ended.
                    continue
                metrics = container_metrics(backend_id, sample or {}, clock)
                if metrics is not None:
                    self._listener.measured(metrics)

        results = await asyncio.gather(*(measure_some() for _ in range(MEASURED_AT_ONCE)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _prune(self) -> None:
        in_use = {container_name(backend_id) for backend_id in {*self._running, *self._starting}}
        await prune_containers(self._engine, self._defaults.drone, in_use, self._prune_after_s)
        if self._prune_images:
            await self._images.prune()

    async def close(self, *, leave_running: bool) -> None:
        """Remove what still runs, or leave it to the drone's next process, and hang up."""
        await self._starting.all_over()
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

    async def _listen(self) -> None:
        """Hear of exits; after a lost connection subscribe again, then look what has ended meanwhile."""
        client = self._engine.client
        while True:
            events: Any = client.events.subscribe(create_task=False)  # type: ignore[no-untyped-call]  # aiodocker
            running = asyncio.create_task(client.events.run(filters={"label": [LABEL], "event": ["die"]}))
            try:
                self._subscribed.set()
                for backend_id in [backend for backend in self._running if backend not in self._starting]:
                    await self._tell_if_ended(backend_id)
                while (event := await events.get()) is not None:
                    name = event["Actor"]["Attributes"]["name"].removeprefix("plane-")
                    if name in self._running and name not in self._starting:
                        self._tasks.start(self._tell_if_ended(name))
            except (OSError, aiohttp.ClientError, aiodocker.DockerError, BackendFailed) as error:
                log.warning("the Docker engine's events are interrupted", error=str(error) or type(error).__name__)
            finally:
                running.cancel()
                await asyncio.wait([running])
            await asyncio.sleep(RESUBSCRIBE_S)

    async def _tell_if_ended(self, backend_id: str) -> None:
        try:
            found = await self._engine.inspect(container_name(backend_id))
        except BackendFailed as error:
            log.warning("cannot see whether container runs; looking again", backend=backend_id, error=str(error))
            return
        if found is None:
            await self._tell_exit(backend_id, None)
        elif found["State"]["Status"] in ("exited", "dead"):
            await self._tell_exit(backend_id, found["State"])

    async def _tell_exit(self, backend_id: str, state: dict[str, Any] | None) -> None:
        """Tell of an exit once, and remove the container."""
        if backend_id not in self._running or backend_id in self._ending:
            return
        code = None if state is None else int(state["ExitCode"])
        message: str | None = "its container is gone"
        if state is not None:
            self._ending.add(backend_id)
            try:
                message = _message(state, await self._keep_output(backend_id))
            finally:
                self._ending.discard(backend_id)
        del self._running[backend_id]
        self._relays.ended(backend_id)
        log.info("container ended", backend=backend_id, exit_code=code)
        self._listener.exited(backend_id, code, message)
        self._doomed.add(backend_id)
        await self._remove_doomed()

    async def _keep_output(self, backend_id: str) -> str:
        """Store a container's output before it is removed; returns the end of it."""
        lines = await self._last_lines(container_name(backend_id))
        self._logs.append(backend_id, (line.text.encode() for line in lines), (line.time_ns for line in lines))
        return self._logs.ended(backend_id)

    async def _last_lines(self, container: str) -> Any:
        try:
            async with asyncio.timeout(LAST_OUTPUT_LIMIT_S):
                return await container_lines(
                    self._engine, container, None, LAST_LINES, running=False, limit_bytes=LAST_BYTES
                )
        except (BackendFailed, TimeoutError) as error:
            log.warning("a container's output cannot be read", container=container, error=str(error))
            return []


def _own_pid(inspected: dict[str, Any]) -> int:
    """The container's first process, if it is one of this machine's and can be seen here; else 0."""
    pid = int(inspected["State"].get("Pid", 0))
    try:
        is_its = inspected["Id"] in Path(f"/proc/{pid}/cgroup").read_text()
    except (KeyError, OSError):
        return 0
    return pid if is_its else 0


def _check_mounted(pid: int, folder: int) -> None:
    """See that the engine has mounted the folder that was opened, and none that took its place meanwhile.

    Raises:
        BackendFailed: it has not.
    """
    try:
        mounted = os.stat(f"/proc/{pid}/root/plane-data")  # noqa: PTH116 - beside fstat
    except OSError:
        # Another machine's or namespace's engine, or the process has ended.
        return
    opened = os.fstat(folder)
    if (mounted.st_dev, mounted.st_ino) != (opened.st_dev, opened.st_ino):
        raise BackendFailed("executable.mount: the folder was replaced while it was being mounted; connect again")


def _message(state: dict[str, Any], output: str) -> str | None:
    """What to tell people of an exit; None for a clean one."""
    code = state["ExitCode"]
    if code == 0 and not state.get("OOMKilled"):
        return None
    how = f"exited with code {code}"
    if state.get("OOMKilled"):
        how += " after it ran out of memory (resource_limits.memory_limit_bytes)"
    if error := state.get("Error"):
        how += f" ({error})"
    if (hint := container_exec_hint(output)) is not None:
        how += f" ({hint})"
    return f"{how}{OUTPUT_MARKER}{output}" if output else f"{how}, without any output"
