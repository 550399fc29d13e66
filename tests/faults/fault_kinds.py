"""Carries out faults. Each function begins one and returns what undoes it; both run on a thread, since they wait."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from faults.cluster import CLUSTER, CONTROLLER_PORT, FaultyCluster, Part
from faults.docker_engine import DockerHost
from faults.hosts import NET, Host
from faults.schedule import DATABASE, PlannedFault

__all__ = ["CARRIED_OUT", "begin"]

Undo = Callable[[], None]
WATCHDOG = "plane.drone.watchdog.main"
SPARE_NUMBER = 60
BALLAST = "ballast"
# Another continent, a bad satellite link, and longer than a request waits for a route.
DELAYS_S = (0.1, 0.6, 2.5)
# About as long as a backend is in each state of its start.
JUMP_EVERY_MS = 40


def begin(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    """Begin a fault; returns what undoes it."""
    return CARRIED_OUT[fault.kind](cluster, fault)


def nothing() -> None:
    """Undo a fault that is over by itself."""


def _part(cluster: FaultyCluster, fault: PlannedFault) -> Part:
    return cluster.parts[fault.target]


def _host(cluster: FaultyCluster, fault: PlannedFault) -> Host:
    return cluster.postgres.primary if fault.target == DATABASE else cluster.hosts[fault.target]


# Programs.


def program_killed(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    part = _part(cluster, fault)
    part.stop(signal.SIGKILL)
    return part.start


def program_stopped(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    part = _part(cluster, fault)
    part.signal(signal.SIGSTOP)
    return lambda: part.signal(signal.SIGCONT)


def program_restarted(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    part = _part(cluster, fault)
    part.stop(signal.SIGTERM)
    part.start()
    return nothing


def proxy_upgraded(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    _part(cluster, fault).signal(signal.SIGUSR2)
    return nothing


def watchdog_killed(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    _host(cluster, fault).signal(signal.SIGKILL, WATCHDOG)
    return nothing


def watchdog_stopped(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    host = _host(cluster, fault)
    host.signal(signal.SIGSTOP, WATCHDOG)
    return lambda: host.signal(signal.SIGCONT, WATCHDOG)


# Network. The rules of a fault are a table of its own.


def _filtered(*rules: tuple[str, str]) -> Callable[[FaultyCluster, PlannedFault], Undo]:
    def carry_out(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
        host, table = _host(cluster, fault), f"fault{fault.number}"
        host.filter_packets(table, *((chain, rule.replace("NET", f"{NET}.0/24")) for chain, rule in rules))
        return lambda: host.unfilter(table)

    return carry_out


cut_off = _filtered(("input", "ip saddr NET drop"), ("output", "ip daddr NET drop"))
nothing_arrives = _filtered(("input", "ip saddr NET drop"))
nothing_leaves = _filtered(("output", "ip daddr NET drop"))
packets_lost = _filtered(("input", "ip saddr NET numgen random mod 100 < 25 drop"))
connections_reset = _filtered(("input", "ip saddr NET meta l4proto tcp reject with tcp reset"))
# Connections are established, and nothing is transferred.
connections_hang = _filtered(("input", "ip saddr NET tcp flags & syn != syn drop"))


def link_cut(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    """One other host, which the seed draws, is unreachable, and cannot reach it either."""
    host, table = _host(cluster, fault), f"fault{fault.number}"
    others = [other for name, other in sorted(cluster.hosts.items()) if other is not host]
    peer = random.Random(fault.seed).choice(others).ip
    host.filter_packets(table, ("input", f"ip saddr {peer} drop"), ("output", f"ip daddr {peer} drop"))
    return lambda: host.unfilter(table)


def network_slow(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    host = _host(cluster, fault)
    host.throttle("256kbit")
    return lambda: host.throttle(None)


def packets_delayed(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    return _host(cluster, fault).delay(random.Random(fault.seed).choice(DELAYS_S))


# Clocks and machines.


def clock_steps(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    host = _host(cluster, fault)
    step_s = random.Random(fault.seed).choice((-3600, -130, -35, 35, 130, 3600))
    cluster.set_clock(host, step_s)
    return lambda: cluster.set_clock(host)


def clock_runs_wrong(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    host = _host(cluster, fault)
    rate = random.Random(fault.seed).choice((0.93, 1.07))
    cluster.set_clock(host, rate=rate)
    return lambda: cluster.set_clock(host)


def clock_jumps(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    """As where two programs set the clock, and disagree."""
    host = _host(cluster, fault)
    cluster.set_clock(host, random.Random(fault.seed).choice((-3600, -35, 35, 3600)), period_ms=JUMP_EVERY_MS)
    return lambda: cluster.set_clock(host)


def host_rebooted(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    part = _part(cluster, fault)
    part.stop(signal.SIGKILL)
    part.host.power_off()

    def boot() -> None:
        part.host.boot(random.Random(fault.seed).randrange(0, 100_000))
        if part.engine is not None:
            part.engine.boot()
        part.start()

    return boot


def engine_restarted(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    engine = _engine(cluster, fault)
    engine.stop(signal.SIGTERM)
    engine.start()
    return nothing


def engine_killed(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    engine = _engine(cluster, fault)
    engine.stop(signal.SIGKILL)
    return engine.start


def engine_stopped(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    engine = _engine(cluster, fault)
    engine.signal(signal.SIGSTOP)
    return lambda: engine.signal(signal.SIGCONT)


def _engine(cluster: FaultyCluster, fault: PlannedFault) -> DockerHost:
    engine = _part(cluster, fault).engine
    assert engine is not None
    return engine


# State stores and disks.


def store_lost(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    part = _part(cluster, fault)
    part.stop(signal.SIGKILL)
    _remove_store(part.store)
    part.start()
    return nothing


def store_restored(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    part = _part(cluster, fault)
    copy = part.host.folder / f"copy-{fault.number}"
    _copy_store(part.store, copy)

    def restore() -> None:
        part.stop(signal.SIGKILL)
        _remove_store(part.store)
        _copy_store(copy / part.store.name, part.store.parent)
        part.start()

    return restore


def drone_cloned(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    """Another host starts from a copy of the drone's disk, under the same name."""
    clone = _second_drone(cluster, fault, "clone")
    _copy_store(_part(cluster, fault).store, clone.store.parent)
    clone.start()
    return clone.host.power_off


def drone_replaced(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    """The drone's host is cut off, and another one with an empty disk is given its name."""
    heal = cut_off(cluster, fault)
    replacement = _second_drone(cluster, fault, "other")
    replacement.start()

    def undo() -> None:
        replacement.host.power_off()
        heal()

    return undo


def _second_drone(cluster: FaultyCluster, fault: PlannedFault, kind: str) -> Part:
    """A drone of the same name on a spare host, which is not started yet."""
    part = _part(cluster, fault)
    host = Host(f"{kind}-{fault.number}", SPARE_NUMBER + fault.number % 100, cluster.folder)
    host.boot()
    second = Part("drone", host, list(part.arguments), part.environment)
    second.store.parent.mkdir()
    for option, value in (("--ip", host.ip), ("--db", str(second.store))):
        second.arguments[second.arguments.index(option) + 1] = value
    return second


def disk_full(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    ballast = _part(cluster, fault).store.parent / BALLAST
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))
    return lambda: ballast.unlink(missing_ok=True)


def disk_hangs(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    folder = str(_part(cluster, fault).store.parent)
    subprocess.run(["fsfreeze", "--freeze", folder], check=True)
    return lambda: _thaw(folder)


def _thaw(folder: str) -> None:
    subprocess.run(["fsfreeze", "--unfreeze", folder], check=False, capture_output=True)


def _remove_store(store: Path) -> None:
    for path in store.parent.glob(f"{store.name}*"):
        if path.is_symlink() or path.is_file():
            path.unlink()


def _copy_store(store: Path, folder: Path) -> None:
    """Copy a store as it is, with what is not yet in its main file."""
    folder.mkdir(exist_ok=True)
    for path in store.parent.glob(f"{store.name}*"):
        if path.is_file() and not path.is_symlink():
            shutil.copy(path, folder)


# The database, and what an operator does.


def database_restarted(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    host = cluster.postgres.primary
    cluster.postgres.stop_server(host, signal.SIGINT)
    return lambda: cluster.postgres.start_server(host)


def database_crashed(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    host = cluster.postgres.primary
    cluster.postgres.stop_server(host, signal.SIGQUIT)
    return lambda: cluster.postgres.start_server(host)


def database_stopped(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    host = cluster.postgres.primary
    host.signal(signal.SIGSTOP, "postgres")
    return lambda: host.signal(signal.SIGCONT, "postgres")


def database_failed_over(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    cluster.postgres.fail_over()
    return nothing


def drone_drained(cluster: FaultyCluster, fault: PlannedFault) -> Undo:
    arguments = _part(cluster, fault).arguments
    name = arguments[arguments.index("--name") + 1]

    def call(what: str) -> None:
        for controller in cluster.of_role("controller"):
            url = f"http://{controller.host.ip}:{CONTROLLER_PORT}/ctrl/c/{CLUSTER}/d/{name}/{what}"
            if (
                subprocess.run(
                    ["curl", "-sf", "-m", "5", "-X", "POST", url], check=False, capture_output=True
                ).returncode
                == 0
            ):
                return

    call("drain")
    return lambda: call("undrain")


CARRIED_OUT: dict[str, Callable[[FaultyCluster, PlannedFault], Undo]] = {
    "program killed": program_killed,
    "program stopped": program_stopped,
    "program restarted": program_restarted,
    "watchdog killed": watchdog_killed,
    "watchdog stopped": watchdog_stopped,
    "host cut off": cut_off,
    "two hosts cut off from each other": link_cut,
    "nothing arrives at host": nothing_arrives,
    "nothing leaves host": nothing_leaves,
    "packets lost": packets_lost,
    "network slow": network_slow,
    "packets delayed": packets_delayed,
    "connections reset": connections_reset,
    "connections hang": connections_hang,
    "clock steps": clock_steps,
    "clock runs wrong": clock_runs_wrong,
    "clock jumps to and fro": clock_jumps,
    "host rebooted": host_rebooted,
    "store lost": store_lost,
    "store restored from a copy": store_restored,
    "drone cloned": drone_cloned,
    "drone replaced": drone_replaced,
    "disk full": disk_full,
    "disk hangs": disk_hangs,
    "proxy upgraded in place": proxy_upgraded,
    "drone drained": drone_drained,
    "engine restarted": engine_restarted,
    "engine killed": engine_killed,
    "engine stopped": engine_stopped,
    "database restarted": database_restarted,
    "database crashed": database_crashed,
    "database stopped": database_stopped,
    "database failed over": database_failed_over,
}
