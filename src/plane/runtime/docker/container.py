"""Operations on one container of a Docker engine: create, start, kill, inspect after its end.

`docker.runtime` decides when; nothing here keeps state.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from plane.decisions.backends.exec_limits import container_exec_hint
from plane.protocol.logs import LogLine
from plane.protocol.names import container_name
from plane.protocol.spawn import DockerExecutable
from plane.runtime.base import BackendFailed, SpawnRequest
from plane.runtime.docker.config import LABEL, ContainerDefaults, container_config, published_port
from plane.runtime.docker.engine import DockerEngine, EngineRefused
from plane.runtime.docker.logs import container_lines
from plane.runtime.exit_message import exit_message
from plane.runtime.kill_target import ContainerTarget
from plane.runtime.mounts import real_path
from plane.runtime.process.procfs import start_time

__all__ = [
    "container_exit_message",
    "container_names",
    "container_target",
    "create_container",
    "kill_container",
    "last_lines",
    "start_container",
]

# The engine may publish the port a moment after the start.
PORT_POLLS = 20
PORT_POLL_INTERVAL_S = 0.05
# An exit is reported after the last output has been read; a hanging engine must not delay the report for long.
LAST_OUTPUT_TIMEOUT_S = 5.0
# How much of a container's output is retained after the container is removed.
LAST_LINES = 5_000
LAST_BYTES = 4 * 1024 * 1024
# How much of it is part of the message about a failed start.
FAILED_START_LINES = 20

log = structlog.get_logger("plane.runtime")


async def create_container(
    engine: DockerEngine,
    request: SpawnRequest,
    executable: DockerExecutable,
    defaults: ContainerDefaults,
    folder: int | None,
) -> None:
    """Create the container of a backend.

    Args:
        folder: descriptor of the folder to mount.

    Raises:
        BackendFailed: the environment is too large, or the engine refuses or does not respond.
    """
    mount = None if folder is None else real_path(folder)
    config = container_config(request.backend_id, executable, request.key, request.static_token, defaults, mount)
    params = {"name": container_name(request.backend_id)}
    await engine.call("create the container", "POST", "containers/create", params=params, json=config)


async def start_container(
    engine: DockerEngine, name: str, ip: str | None, *, has_network: bool
) -> tuple[dict[str, Any], int | None]:
    """Start a created container. Return the engine's description and the published port, None without a network.

    Args:
        ip: the drone's address, see `plane.runtime.docker.config.published_port`.

    Raises:
        BackendFailed: it ended at once, or the engine publishes no port, refuses or does not respond.
    """
    await engine.call("start the container", "POST", f"containers/{name}/start")
    for _ in range(PORT_POLLS):
        found = await engine.inspect(name)
        if found is not None and found["State"]["Status"] in ("exited", "dead"):
            lines = await last_lines(engine, name)
            output = "\n".join(line.text for line in lines[-FAILED_START_LINES:])
            raise BackendFailed(container_exit_message(found["State"], output) or "ended")
        if found is not None and not has_network:
            return found, None
        if found is not None and (port := published_port(found, ip)):
            return found, port
        await asyncio.sleep(PORT_POLL_INTERVAL_S)
    raise BackendFailed("the Docker engine published no port for the container; does its network allow that?")


async def kill_container(engine: DockerEngine, backend_id: str) -> bool:
    """Kill the container of a backend. Return False if it was not running.

    Raises:
        BackendFailed: the engine does not respond.
    """
    try:
        await engine.call("kill the container", "POST", f"containers/{container_name(backend_id)}/kill")
    except EngineRefused as error:
        if error.status in (404, 409):
            return False
        raise
    return True


async def container_names(engine: DockerEngine, labels: Sequence[str] = (), *, stopped: bool = False) -> set[str]:
    """Return the names of the backends' containers, with ``labels`` too if given.

    Args:
        stopped: whether to include containers that do not run.

    Raises:
        BackendFailed: the engine does not respond.
    """
    params = {"filters": json.dumps({"label": [LABEL, *labels]})}
    if stopped:
        params["all"] = "true"
    listed = await engine.call("list containers", "GET", "containers/json", params=params)
    return {name.lstrip("/") for container in listed or () for name in container["Names"]}


def container_target(engine: Path, backend_id: str, inspected: dict[str, Any] | None = None) -> ContainerTarget:
    """Return where the processes of a container are, for the watchdog.

    Args:
        engine: the engine's Unix socket.
        inspected: the engine's description of the running container.
    """
    pid = _host_pid(inspected) if inspected is not None else 0
    return ContainerTarget(str(engine), container_name(backend_id), pid, start_time(pid) if pid else 0)


def _host_pid(inspected: dict[str, Any]) -> int:
    """Return the id of the container's first process; 0 if it is not visible on this machine."""
    pid = int(inspected["State"].get("Pid", 0))
    try:
        is_container = inspected["Id"] in Path(f"/proc/{pid}/cgroup").read_text()
    except (KeyError, OSError):
        return 0
    return pid if is_container else 0


async def last_lines(engine: DockerEngine, container: str) -> list[LogLine]:
    """Return the last output of a container that has ended; nothing if the engine cannot deliver it."""
    try:
        async with asyncio.timeout(LAST_OUTPUT_TIMEOUT_S):
            return await container_lines(engine, container, None, LAST_LINES, running=False, limit_bytes=LAST_BYTES)
    except (BackendFailed, TimeoutError) as error:
        log.warning("container output not readable", container=container, error=str(error))
        return []


def container_exit_message(state: dict[str, Any], output: str) -> str | None:
    """Return the message about the exit of a container; None for a clean one.

    Args:
        state: the engine's description of the container's state.
        output: the end of its output.
    """
    code, out_of_memory = state["ExitCode"], bool(state.get("OOMKilled"))
    if code == 0 and not out_of_memory:
        return None
    details = (state.get("Error"), container_exec_hint(output))
    return exit_message(f"exited with code {code}", output, out_of_memory=out_of_memory, details=details)
