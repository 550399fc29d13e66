"""Choose and create the runtime of a drone, by its settings and by what the machine provides."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from plane.fd_limit import raise_fd_limit
from plane.protocol.errors import ConfigurationError
from plane.runtime.base import Runtime
from plane.runtime.docker.engine import DockerEngine, engine_is_available
from plane.runtime.logs.collector import LogCollector
from plane.runtime.process.backend_user import backend_user
from plane.runtime.process.bubblewrap import bubblewrap_works
from plane.runtime.process.cgroups import Cgroups
from plane.runtime.process.runtime import ProcessRuntime
from plane.runtime.remote import RemoteRuntime
from plane.settings import DroneSettings, ExecutorSettings, RuntimeKind

__all__ = ["Owner", "create_runtime"]

log = structlog.get_logger("plane.drone")


@dataclass(frozen=True, slots=True)
class Owner:
    """The drone that owns a runtime's backends. All of this identifies the backends of a former process.

    Attributes:
        installation: see `DroneSettings`.
    """

    name: str
    cluster: str
    installation: str = ""


async def create_runtime(settings: DroneSettings | ExecutorSettings, owner: Owner) -> Runtime:
    """Create a runtime, which the caller starts.

    Raises:
        ConfigurationError: the machine does not provide what the settings require.
    """
    if isinstance(settings, DroneSettings) and settings.executor_socket is not None:
        return RemoteRuntime(settings.executor_socket, startup_timeout_s=settings.startup_timeout_s)
    if settings.mount_base is not None and not settings.mount_base.is_dir():
        raise ConfigurationError(
            f"--mount-base: {settings.mount_base} is not a folder; create it, or leave the option out"
        )
    kind = settings.runtime
    has_engine = kind is not RuntimeKind.PROCESS and await engine_is_available(settings.docker_socket)
    if kind is RuntimeKind.DOCKER and not has_engine:
        raise ConfigurationError(
            f"no Docker engine responds at {settings.docker_socket}; start it, name another socket with "
            "--docker-socket, or use --runtime process"
        )
    if kind is RuntimeKind.AUTO and not has_engine and settings.docker_socket.exists():
        log.warning("Docker engine not available; backends run as processes", docker_socket=str(settings.docker_socket))
    # Each backend takes two or three descriptors of this process, so the usual limit of 1,024 allows 400 backends.
    raise_fd_limit()
    logs = LogCollector(settings.backends_folder, settings.log_limit_bytes)
    create = _docker if has_engine else _processes
    return await create(settings, owner, logs)


async def _docker(settings: DroneSettings | ExecutorSettings, owner: Owner, logs: LogCollector) -> Runtime:
    # Imported here, so that a drone without an engine starts sooner.
    from plane.runtime.docker.config import ContainerDefaults
    from plane.runtime.docker.runtime import DockerRuntime

    return DockerRuntime(
        logs,
        settings.docker_socket,
        defaults=ContainerDefaults(
            drone=owner.name,
            cluster=owner.cluster,
            installation=owner.installation,
            runtime=settings.docker_runtime,
            log_config=settings.log_config or await _bounded_log_config(settings),
        ),
        mount_base=settings.mount_base,
        prune_images=settings.auto_prune_images,
        prune_after_s=settings.auto_prune_containers_older_than_s,
        ip=settings.ip if isinstance(settings, DroneSettings) else None,
        ports=settings.backend_ports,
        grace_s=settings.soft_terminate_grace_s,
        startup_timeout_s=settings.startup_timeout_s,
    )


async def _bounded_log_config(settings: DroneSettings | ExecutorSettings) -> dict[str, Any] | None:
    """Return a bounded configuration of the engine's file log; None if the operator has chosen another log driver."""
    engine = DockerEngine(settings.docker_socket)
    try:
        driver = (await engine.call("describe itself", "GET", "info")).get("LoggingDriver")
    finally:
        await engine.close()
    if driver not in ("json-file", "local"):
        return None
    return {"Type": driver, "Config": {"max-size": str(settings.log_limit_bytes // 2), "max-file": "2"}}


async def _processes(settings: DroneSettings | ExecutorSettings, owner: Owner, logs: LogCollector) -> Runtime:
    bubblewrap = await bubblewrap_works()
    user = backend_user(settings.backend_user)
    if user is not None and shutil.which("setpriv") is None:
        raise ConfigurationError(
            "setpriv (package util-linux) is not installed, so backends can only run as root; install "
            "it, or use --backend-user root"
        )
    cgroups = Cgroups.detect()
    log.info(
        "backends run as processes", bubblewrap=bubblewrap, control_groups=cgroups is not None, uid=user and user.uid
    )
    if not bubblewrap:
        log.warning("processes not isolated: bubblewrap is not installed or may not create namespaces")
    return ProcessRuntime(
        logs,
        bubblewrap=bubblewrap,
        cgroups=cgroups,
        identity="/".join(filter(None, (owner.cluster, owner.name, owner.installation))),
        mount_base=settings.mount_base,
        exposed=settings.expose,
        hidden=_hidden_paths(settings),
        user=user,
        ip=settings.ip if isinstance(settings, DroneSettings) else None,
        ports=settings.backend_ports,
        grace_s=settings.soft_terminate_grace_s,
        startup_timeout_s=settings.startup_timeout_s,
    )


def _hidden_paths(settings: DroneSettings | ExecutorSettings) -> tuple[Path, ...]:
    """Return the drone's own paths that no isolated backend may read, even if both run as the same user."""
    hidden = tuple(path.resolve() for path in settings.hide)
    if settings.db_path is None or settings.backends_folder is None:
        return hidden
    db = os.fspath(settings.db_path.resolve())
    return (*hidden, settings.backends_folder.resolve(), Path(db), Path(f"{db}-wal"), Path(f"{db}-shm"))
