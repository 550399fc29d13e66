"""Chooses the checks for a component's settings, runs them, and collects their findings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from plane.decisions.diagnosis import Finding, Status, drone_address_finding
from plane.doctor import cluster, database, machine
from plane.os_errors import error_reason
from plane.settings import (
    ControllerSettings,
    DnsSettings,
    DroneSettings,
    ExecutorSettings,
    ProxySettings,
    RuntimeKind,
    RuntimeSettings,
)

__all__ = ["Check", "checks_of", "checks_of_database", "checks_of_machine", "examine"]

Settings = ControllerSettings | DroneSettings | ProxySettings | DnsSettings | ExecutorSettings

CHECK_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check. ``needs_success``: it is skipped if the check before it failed."""

    name: str
    run: Callable[[], Awaitable[Finding]]
    needs_success: bool = False


async def examine(checks: Sequence[Check]) -> AsyncIterator[tuple[str, Finding]]:
    """Run the checks one after the other, and yield each name with its finding.

    A check that raises, or takes longer than `CHECK_TIMEOUT_S`, has failed.
    """
    reachable = True
    for check in checks:
        if check.needs_success and not reachable:
            yield check.name, Finding(Status.SKIPPED, "the check before it failed")
            continue
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                finding = await check.run()
        except TimeoutError:
            finding = Finding(
                Status.FAILED, f"no result within {CHECK_TIMEOUT_S:.0f} s", "check the network to that part"
            )
        except Exception as error:
            finding = Finding(
                Status.FAILED, f"{type(error).__name__}: {error_reason(error)}", "report it, with the command line"
            )
        if not check.needs_success:
            reachable = finding.status is not Status.FAILED
        yield check.name, finding


def checks_of_machine(data_folder: Path, docker_socket: Path) -> list[Check]:
    """Return the checks for `plane dev` on this machine."""
    return [
        Check("open files", machine.open_files),
        Check("disk", partial(machine.disk, data_folder)),
        Check("isolation", machine.isolation),
        Check("control groups", machine.control_groups),
        Check("Docker engine", partial(machine.docker_engine, docker_socket, required=False)),
    ]


def checks_of_database(url: str) -> list[Check]:
    """Return the checks of a controller's database."""
    return [
        Check("database", partial(database.check_connection, url)),
        Check("database schema", partial(database.check_schema, url), needs_success=True),
        Check("database clock", partial(database.check_clock, url), needs_success=True),
        Check("database notifications", partial(database.check_notifications, url), needs_success=True),
    ]


def checks_of(settings: Settings) -> list[Check]:
    """Return the checks for a component on this machine."""
    files = Check("open files", machine.open_files)
    match settings:
        case ControllerSettings(host=host, port=port, db=db):
            health = f"http://{_connectable(host)}:{port}/pub/health"
            return [
                files,
                *checks_of_database(db),
                Check("port", partial(machine.port, host, port, "--port", health)),
            ]
        case DroneSettings():
            path = f"/ctrl/c/{settings.cluster}/drone-socket"
            return [
                files,
                Check("controller", partial(cluster.check_controller, settings.controller_url, path)),
                Check("address", partial(_address, settings.ip, settings.controller_url.base)),
                Check("disk", partial(machine.disk, settings.db_path.parent if settings.db_path else Path.cwd())),
                *(_runtime_checks(settings) if settings.executor_socket is None else ()),
            ]
        case ExecutorSettings():
            return [files, Check("disk", partial(machine.disk, settings.socket.parent)), *_runtime_checks(settings)]
        case ProxySettings():
            return [files, *_proxy_checks(settings)]
        case DnsSettings():
            return [
                files,
                Check("controller", partial(cluster.check_controller, settings.controller_url, "/ctrl/dns-socket")),
                Check("port", partial(machine.port, settings.hosts[0], settings.port, "--port")),
                *([] if settings.zone is None else [Check("delegation", partial(cluster.check_zone, settings.zone))]),
            ]


def _runtime_checks(settings: RuntimeSettings) -> list[Check]:
    required = settings.runtime is RuntimeKind.DOCKER
    checks = (
        []
        if settings.runtime is RuntimeKind.PROCESS
        else [Check("Docker engine", partial(machine.docker_engine, settings.docker_socket, required=required))]
    )
    if not required:
        checks += [Check("isolation", machine.isolation), Check("control groups", machine.control_groups)]
    return checks


def _proxy_checks(settings: ProxySettings) -> list[Check]:
    ready = f"http://{_connectable(settings.host)}:{settings.http_port}/ready"
    path = f"/ctrl/c/{settings.cluster}/proxy-socket"
    checks = [
        Check("controller", partial(cluster.check_controller, settings.controller_url, path)),
        Check("backends", partial(cluster.check_backends, settings.controller_url, settings.cluster)),
        Check("cluster name", partial(cluster.check_cluster_name, settings.cluster)),
        Check("HTTP port", partial(machine.port, settings.host, settings.http_port, "--http-port", ready)),
    ]
    if settings.https_port is not None:
        checks += [
            Check("HTTPS port", partial(machine.port, settings.host, settings.https_port, "--https-port", ready)),
            Check("certificate", partial(cluster.check_certificate, settings)),
        ]
    if settings.acme is not None:
        checks.append(Check("challenge", partial(cluster.check_acme_delegation, settings.cluster, settings.acme)))
    return checks


async def _address(ip: str, controller_url: str) -> Finding:
    return drone_address_finding(ip, machine.local_addresses(), controller_url)


def _connectable(host: str) -> str:
    """Return an address at which a server on ``host`` can be reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
