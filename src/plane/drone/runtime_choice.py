"""What runs the backends of this drone? Makes the runtime that the settings, or the machine, ask for."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from plane.fd_limit import raise_fd_limit
from plane.protocol.errors import ConfigurationError
from plane.runtime.base import Runtime, RuntimeListener
from plane.runtime.docker.config import ContainerDefaults
from plane.runtime.docker.engine import DockerEngine, engine_is_available
from plane.runtime.docker.runtime import DockerRuntime
from plane.runtime.logs.collector import LogCollector
from plane.runtime.process.backend_user import backend_user
from plane.runtime.process.cgroups import Cgroups
from plane.runtime.process.runtime import ProcessRuntime, bubblewrap_works
from plane.runtime.remote import RemoteRuntime
from plane.settings import DroneSettings, ExecutorSettings, RuntimeKind

__all__ = ["Owner", "create_runtime"]

log = structlog.get_logger("plane.drone")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose backends a runtime runs: a drone's name and cluster, under which it finds what it left on the machine."""

    name: str
    cluster: str


async def create_runtime(
    settings: DroneSettings | ExecutorSettings, owner: Owner, listener: RuntimeListener
) -> Runtime:
    """A runtime that has been started. ``owner``: whose backends are its own.

    Raises:
        ConfigurationError: what is asked for is not there.
    """
    if isinstance(settings, DroneSettings) and settings.executor_socket is not None:
        executor = RemoteRuntime(listener, settings.executor_socket, startup_limit_s=settings.startup_timeout_s)
        await executor.start()
        return executor
    if settings.mount_base is not None and not settings.mount_base.is_dir():
        raise ConfigurationError(f"--mount-base: {settings.mount_base} is no folder; make it, or leave the option out")
    kind = settings.runtime
    answers = kind is not RuntimeKind.PROCESS and await engine_is_available(settings.docker_socket)
    if kind is RuntimeKind.DOCKER and not answers:
        raise ConfigurationError(
            f"no Docker engine answers at {settings.docker_socket}; start it, name another socket with "
            "--docker-socket, or use --runtime process"
        )
    if kind is RuntimeKind.AUTO and not answers and settings.docker_socket.exists():
        log.warning("no Docker engine answers; backends will be processes", docker_socket=str(settings.docker_socket))
    # Each backend needs two or three here, so the usual limit of 1,024 would end at 400 of them.
    raise_fd_limit()
    logs = LogCollector(settings.backends_folder, settings.log_limit_bytes)
    make = _docker if answers else _processes
    return await make(settings, owner, listener, logs)


async def _docker(
    settings: DroneSettings | ExecutorSettings, owner: Owner, listener: RuntimeListener, logs: LogCollector
) -> Runtime:
    runtime = DockerRuntime(
        listener,
        logs,
        settings.docker_socket,
        defaults=ContainerDefaults(
            drone=owner.name,
            cluster=owner.cluster,
            runtime=settings.docker_runtime,
            log_config=settings.log_config or await _bounded_log_config(settings),
        ),
        mount_base=settings.mount_base,
        prune_images=settings.auto_prune_images,
        prune_after_s=settings.auto_prune_containers_older_than_s,
        ip=settings.ip if isinstance(settings, DroneSettings) else None,
        ports=settings.backend_ports,
        grace_s=settings.soft_terminate_grace_s,
        startup_limit_s=settings.startup_timeout_s,
    )
    await runtime.start()
    return runtime


async def _bounded_log_config(settings: DroneSettings | ExecutorSettings) -> dict[str, Any] | None:
    """The engine's own file log, bounded as ours; None where the operator has given it another driver."""
    engine = DockerEngine(settings.docker_socket)
    try:
        driver = (await engine.call("tell about itself", "GET", "info")).get("LoggingDriver")
    finally:
        await engine.close()
    if driver not in ("json-file", "local"):
        return None
    return {"Type": driver, "Config": {"max-size": str(settings.log_limit_bytes // 2), "max-file": "2"}}


async def _processes(
    settings: DroneSettings | ExecutorSettings, owner: Owner, listener: RuntimeListener, logs: LogCollector
) -> Runtime:
    bubblewrap = await bubblewrap_works()
    user = backend_user(settings.backend_user)
    if user is not None and shutil.which("setpriv") is None:
        raise ConfigurationError(
            "setpriv (package util-linux) is not installed, so backends cannot run as another user than root; install "
            "it, or use --backend-user root"
        )
    cgroups = Cgroups.detect()
    log.info("backends are processes", bubblewrap=bubblewrap, control_groups=cgroups is not None, uid=user and user.uid)
    if not bubblewrap:
        log.warning("processes are not isolated: bubblewrap is not installed, or may not make namespaces here")
    return ProcessRuntime(
        listener,
        logs,
        bubblewrap=bubblewrap,
        cgroups=cgroups,
        identity=f"{owner.cluster}/{owner.name}",
        mount_base=settings.mount_base,
        exposed=settings.expose,
        hidden=_secrets(settings),
        user=user,
        ip=settings.ip if isinstance(settings, DroneSettings) else None,
        ports=settings.backend_ports,
        grace_s=settings.soft_terminate_grace_s,
        startup_limit_s=settings.startup_timeout_s,
    )


def _secrets(settings: DroneSettings | ExecutorSettings) -> tuple[Path, ...]:
    """What of the drone's own no isolated backend may read, even if both have the same user."""
    hidden = tuple(path.resolve() for path in settings.hide)
    if settings.db_path is None or settings.backends_folder is None:
        return hidden
    db = os.fspath(settings.db_path.resolve())
    return (*hidden, settings.backends_folder.resolve(), Path(db), Path(f"{db}-wal"), Path(f"{db}-shm"))
