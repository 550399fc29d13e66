"""Backends as Docker containers: the runtime where an engine answers.

Container ``plane-{backend}``, label ``dev.plane.backend``, port 8080 published on a random port. Rules: page 4,
"Docker". Shares of CPU, CPU time and memory are enforced; mounts and disk limits are refused for now.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp
import structlog

from plane.protocol import codec
from plane.protocol.errors import MessageError
from plane.protocol.keys import AcquiredKey
from plane.protocol.names import container_name
from plane.protocol.spawn import DockerExecutable, PullPolicy
from plane.runtime.base import BackendFailed, ExitListener, session_environment
from plane.runtime.readiness import until_it_answers
from plane.timing import SOFT_TERMINATE_GRACE_S, STARTUP_TIMEOUT_S

__all__ = ["DockerRuntime", "engine_answers"]

LABEL = "dev.plane.backend"
PORT = 8080
DEFAULT_CPU_PERIOD_US = 100_000
# Engine calls other than pulls and stops.
CALL_LIMIT_S = 30.0
PULL_LIMIT_S = 1800.0
PORT_TRIES = 20
PORT_RETRY_S = 0.05
RESUBSCRIBE_S = 0.5
LAST_LINES = 20

log = structlog.get_logger("plane.runtime")


async def engine_answers(engine: Path) -> bool:
    """Whether a Docker engine answers at that Unix socket."""
    if not engine.is_socket():
        return False
    try:
        async with asyncio.timeout(CALL_LIMIT_S):
            docker = _client(engine)
            try:
                await docker.version()
            finally:
                await _hang_up(docker)
    except (OSError, TimeoutError, aiohttp.ClientError, aiodocker.DockerError):
        return False
    return True


def _client(engine: Path) -> aiodocker.Docker:
    # No limit: every wait and event stream holds a connection.
    return aiodocker.Docker(url="http://docker", connector=aiohttp.UnixConnector(path=str(engine), limit=0))


async def _hang_up(docker: aiodocker.Docker) -> None:
    # The client closes its session, but no connector that it was given.
    connector = docker.session.connector
    await docker.close()
    if connector is not None:
        await connector.close()


class DockerRuntime:
    """Runs backends as containers. `start` before anything else.

    Args:
        on_exit: told of each exit.
        engine: the engine's Unix socket.
        grace_s: from SIGTERM to SIGKILL.
        startup_limit_s: until a backend must answer HTTP.
    """

    name = "docker"

    def __init__(
        self,
        on_exit: ExitListener,
        engine: Path,
        *,
        grace_s: float = SOFT_TERMINATE_GRACE_S,
        startup_limit_s: float = STARTUP_TIMEOUT_S,
    ) -> None:
        self._on_exit = on_exit
        self._docker = _client(engine)
        self._grace_s = grace_s
        self._startup_limit_s = startup_limit_s
        # Containers whose exit has not been told yet.
        self._running: set[str] = set()
        self._starting: dict[str, asyncio.Task[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscribed = asyncio.Event()

    async def start(self) -> None:
        """Begin to listen to the engine's events; returns once it does."""
        self._own(self._listen())
        async with asyncio.timeout(CALL_LIMIT_S):
            await self._subscribed.wait()

    async def prepare(self, executable: Any) -> None:
        """Check the executable and pull its image; see `plane.runtime.base.Runtime.prepare`."""
        wanted = _read(executable)
        policy = wanted.pull_policy or PullPolicy.IF_NOT_PRESENT
        if policy is not PullPolicy.ALWAYS and await self._has_image(wanted.image):
            return
        if policy is PullPolicy.NEVER:
            raise BackendFailed(
                f"executable.image: {wanted.image!r} is not on the drone's machine, and pull_policy is Never"
            )
        log.info("pulling", image=wanted.image)
        auth: Any = None
        if wanted.credentials is not None:
            auth = {"username": wanted.credentials.username, "password": wanted.credentials.password}
        try:
            async with asyncio.timeout(PULL_LIMIT_S):
                async for step in self._docker.images.pull(wanted.image, auth=auth, stream=True):
                    if "error" in step:
                        raise BackendFailed(f"executable.image: cannot pull {wanted.image!r}: {step['error']}")
        except (OSError, TimeoutError, aiohttp.ClientError, aiodocker.DockerError) as error:
            raise BackendFailed(f"executable.image: cannot pull {wanted.image!r}: {_text(error)}") from error

    async def _has_image(self, image: str) -> bool:
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                await self._docker.images.inspect(image)
        except aiodocker.DockerError as error:
            if error.status == 404:
                return False
            raise BackendFailed(f"the Docker engine: {_text(error)}") from error
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            raise BackendFailed(f"the Docker engine does not answer: {_text(error)}") from error
        return True

    async def spawn(self, backend_id: str, executable: Any, key: AcquiredKey | None, static_token: str | None) -> int:
        """Start the container; see `plane.runtime.base.Runtime.spawn`."""
        # A task of its own: if the caller is cancelled, `terminate` finds what has been started.
        starting = asyncio.create_task(self._start(backend_id, _read(executable), key, static_token))
        self._starting[backend_id] = starting
        starting.add_done_callback(lambda done: self._started(backend_id, done))
        return await asyncio.shield(starting)

    def _started(self, backend_id: str, starting: asyncio.Task[int]) -> None:
        del self._starting[backend_id]
        if not starting.cancelled() and (error := starting.exception()):
            log.info("container not started", backend=backend_id, error=str(error))

    async def _start(
        self, backend_id: str, wanted: DockerExecutable, key: AcquiredKey | None, static_token: str | None
    ) -> int:
        config = _container_config(backend_id, wanted, key, static_token)
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                container = await self._docker.containers.create(config, name=container_name(backend_id))
                self._running.add(backend_id)
                try:
                    await container.start()
                    return await _published_port(container)
                except BaseException:
                    # No exit is told of what never ran.
                    self._running.discard(backend_id)
                    with contextlib.suppress(aiodocker.DockerError):
                        await container.delete(force=True)
                    raise
        except (OSError, TimeoutError, aiohttp.ClientError, aiodocker.DockerError) as error:
            raise BackendFailed(f"the Docker engine cannot start the container: {_text(error)}") from error

    async def wait_for_backend(self, backend_id: str, host: str, port: int) -> None:
        """Return once it answers; see `plane.runtime.base.Runtime.wait_for_backend`."""
        await until_it_answers(host, port, self._startup_limit_s)

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        """End the container; see `plane.runtime.base.Runtime.terminate`."""
        if starting := self._starting.get(backend_id):
            await asyncio.wait([starting])
        if backend_id not in self._running:
            return False
        if not hard:
            self._own(self._stop(backend_id))
            return True
        return await self._call(backend_id, "kill")

    async def _stop(self, backend_id: str) -> None:
        """Ask it to stop; the engine kills it after the grace."""
        try:
            if not await self._call(backend_id, "stop"):
                await self._tell_exit(backend_id)
        except BackendFailed as error:
            log.warning("container not stopped; it is killed", backend=backend_id, error=str(error))
            await self._call(backend_id, "kill")

    async def _call(self, backend_id: str, what: str) -> bool:
        """Stop or kill. False: it was not running."""
        container = self._docker.containers.container(container_name(backend_id))
        try:
            if what == "stop":
                async with asyncio.timeout(self._grace_s + CALL_LIMIT_S):
                    await container.stop(t=round(self._grace_s))
            else:
                async with asyncio.timeout(CALL_LIMIT_S):
                    await container.kill()
        except aiodocker.DockerError as error:
            # Gone, or not running.
            if error.status in (304, 404, 409):
                return False
            raise BackendFailed(f"the Docker engine cannot {what} the container: {_text(error)}") from error
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            raise BackendFailed(f"the Docker engine does not answer: {_text(error)}") from error
        return True

    async def remove_leftover(self, backend_id: str) -> None:
        """Remove the backend's container, running or not."""
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                await self._docker.containers.container(container_name(backend_id)).delete(force=True)
        except aiodocker.DockerError as error:
            if error.status != 404:
                raise BackendFailed(f"the Docker engine cannot remove the container: {_text(error)}") from error
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            raise BackendFailed(f"the Docker engine does not answer: {_text(error)}") from error

    async def close(self) -> None:
        """Remove what still runs, and hang up."""
        for backend_id in list(self._running):
            with contextlib.suppress(BackendFailed):
                await self.remove_leftover(backend_id)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await _hang_up(self._docker)

    async def _listen(self) -> None:
        """Hear of exits; after a lost connection subscribe again, then look what has ended meanwhile."""
        while True:
            events: Any = self._docker.events.subscribe(create_task=False)  # type: ignore[no-untyped-call]  # aiodocker
            running = asyncio.create_task(self._docker.events.run(filters={"label": [LABEL], "event": ["die"]}))
            try:
                self._subscribed.set()
                for backend_id in list(self._running):
                    await self._tell_if_ended(backend_id)
                while (event := await events.get()) is not None:
                    name = event["Actor"]["Attributes"]["name"].removeprefix("plane-")
                    self._own(self._tell_exit(name, int(event["Actor"]["Attributes"]["exitCode"])))
            except (OSError, aiohttp.ClientError, aiodocker.DockerError, BackendFailed) as error:
                log.warning("the Docker engine's events are interrupted", error=_text(error))
            finally:
                running.cancel()
                await asyncio.wait([running])
            await asyncio.sleep(RESUBSCRIBE_S)

    async def _tell_if_ended(self, backend_id: str) -> None:
        container = self._docker.containers.container(container_name(backend_id))
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                state = (await container.show())["State"]
        except aiodocker.DockerError as error:
            if error.status == 404:
                await self._tell_exit(backend_id)
            return
        except (OSError, TimeoutError, aiohttp.ClientError):
            return
        if state["Status"] in ("exited", "dead"):
            await self._tell_exit(backend_id, state["ExitCode"])

    async def _tell_exit(self, backend_id: str, code: int | None = None) -> None:
        """Tell of an exit once, and remove the container."""
        if backend_id not in self._running:
            return
        self._running.discard(backend_id)
        message = None if code in (0, None) else await self._message(backend_id, code)
        log.info("container ended", backend=backend_id, exit_code=code)
        self._on_exit(backend_id, code, message)
        with contextlib.suppress(BackendFailed):
            await self.remove_leftover(backend_id)

    async def _message(self, backend_id: str, code: int | None) -> str:
        container = self._docker.containers.container(container_name(backend_id))
        lines: list[str] = []
        with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError, aiodocker.DockerError):
            async with asyncio.timeout(CALL_LIMIT_S):
                lines = await container.log(stdout=True, stderr=True, tail=LAST_LINES)
        output = "".join(lines).replace("\0", "").strip()[-2000:]
        how = f"exited with code {code}"
        return f"{how}; its last output:\n{output}" if output else f"{how}, without any output"

    def _own(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _container_config(
    backend_id: str, wanted: DockerExecutable, key: AcquiredKey | None, static_token: str | None
) -> dict[str, Any]:
    environment = wanted.env | session_environment(backend_id, PORT, key, static_token)
    limits = wanted.resource_limits
    host: dict[str, Any] = {"PortBindings": {f"{PORT}/tcp": [{"HostIp": "", "HostPort": "0"}]}}
    if limits.memory_limit_bytes is not None:
        host["Memory"] = limits.memory_limit_bytes
    if limits.cpu_period is not None or limits.cpu_period_percent is not None:
        host["CpuPeriod"] = limits.cpu_period or DEFAULT_CPU_PERIOD_US
        if limits.cpu_period_percent is not None:
            host["CpuQuota"] = host["CpuPeriod"] * limits.cpu_period_percent // 100
    if limits.cpu_time_limit is not None:
        host["Ulimits"] = [{"Name": "cpu", "Soft": limits.cpu_time_limit, "Hard": limits.cpu_time_limit}]
    if wanted.network_name is not None:
        host["NetworkMode"] = wanted.network_name
    return {
        "Image": wanted.image,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": {LABEL: "true"},
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "HostConfig": host,
    }


async def _published_port(container: Any) -> int:
    """The port of the machine; the engine may need a moment to know it."""
    for _ in range(PORT_TRIES):
        ports = (await container.show())["NetworkSettings"]["Ports"].get(f"{PORT}/tcp")
        if ports:
            return int(ports[0]["HostPort"])
        await asyncio.sleep(PORT_RETRY_S)
    raise BackendFailed("the Docker engine published no port for the container; did it end at once?")


def _read(executable: Any) -> DockerExecutable:
    """The executable, checked.

    Raises:
        BackendFailed: names the field and what it must be.
    """
    if isinstance(executable, dict) and "command" in executable and "image" not in executable:
        raise BackendFailed(
            'executable: this drone runs images, not commands; give {"image": "…"}, or use a drone with '
            "--runtime process"
        )
    try:
        wanted = codec.convert(executable, DockerExecutable)
    except MessageError as error:
        raise BackendFailed(
            f'executable{error.path.removeprefix("$")}: {error.reason}; the shape is {{"image": "…", "env": {{…}}}}'
        ) from None
    if wanted.mount is not None and wanted.mount is not False:
        raise BackendFailed("executable.mount: this drone has no folder for mounts; leave it out")
    if wanted.resource_limits.disk_limit_bytes is not None:
        raise BackendFailed("executable.resource_limits.disk_limit_bytes: not enforced by this drone; leave it out")
    return wanted


def _text(error: BaseException) -> str:
    if isinstance(error, aiodocker.DockerError):
        return str(error.message)
    return str(error) or type(error).__name__
