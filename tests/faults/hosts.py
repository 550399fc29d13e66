"""Hosts: namespaces for processes, network, host name, mounts and time, connected by a bridge that the run has made.

The run itself is in namespaces of its own (`faults.__main__`), so everything here ends with it. The observer's socket
is a path of the file system, which no fault of the network reaches.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from faults.delays import CHECKSUMS_OFF, Delay

__all__ = ["GATEWAY", "Host", "make_bridge", "remove_control_groups"]

BRIDGE = "faults0"
NET = "10.77.0"
GATEWAY = f"{NET}.1"
COMMAND_TIMEOUT_S = 60.0

# Process 1 of a host. $1: its name; $2: a file with its boot id. It waits for orphans, as an init does.
INIT = """
set -eu
hostname "$1"
mount --bind "$2" /proc/sys/kernel/random/boot_id
# libfaketime has files there that are named by process ids, which other hosts have too.
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
echo up
while :; do sleep 3600 & wait $! || :; done
"""
NAMESPACES = ("--mount", "--pid", "--net", "--uts", "--ipc", "--time")


def make_bridge() -> None:
    """Make the bridge. It belongs to the network namespace of the run."""
    for command in (
        ("link", "set", "lo", "up"),
        ("link", "add", BRIDGE, "type", "bridge"),
        ("addr", "add", f"{GATEWAY}/24", "dev", BRIDGE),
        ("link", "set", BRIDGE, "up"),
    ):
        _run("ip", *command)


class Host:
    """One host.

    Args:
        number: the last number of its address.
        folder: for files of its own.
    """

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.ip = f"{NET}.{number}"
        self.folder = folder / name
        self.folder.mkdir()
        self._device = f"fv{number}"
        self._init: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._started: list[subprocess.Popen[bytes]] = []

    def boot(self, boottime_offset_s: int = 0) -> None:
        """Start the host, with a boot id of its own and so much added to its CLOCK_BOOTTIME."""
        boot_id = self.folder / "boot_id"
        boot_id.write_text(f"{uuid.uuid4()}\n")
        offsets = ["--boottime", str(boottime_offset_s), "--monotonic", str(boottime_offset_s)]
        command = ["unshare", *NAMESPACES, *offsets, "--fork", "--kill-child", "--mount-proc"]
        self._init = subprocess.Popen(
            [*command, "sh", "-c", INIT, "init", self.name, str(boot_id)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == b"up\n", f"host {self.name} does not start"
        self._pid = int(Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()[0])
        _run("ip", "link", "add", self._device, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid))
        _run("ip", "link", "set", self._device, "master", BRIDGE, "up")
        self.run("ip", "addr", "add", f"{self.ip}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def power_off(self) -> None:
        """End all its processes at once."""
        if self._init is None:
            return
        self._init.kill()
        self._init.wait()
        for process in self._started:
            process.wait(COMMAND_TIMEOUT_S)
        self._started.clear()
        self._init = None
        # The device goes with the namespace, a moment later.
        subprocess.run(["ip", "link", "del", self._device], check=False, capture_output=True)

    def enter(self, *command: str) -> list[str]:
        """Return the command line that runs ``command`` there."""
        return ["nsenter", f"--target={self._pid}", *NAMESPACES, *command]

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command there, and return its output."""
        return _run(*self.enter(*command), check=check)

    def start(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path, *, user: str | None = None
    ) -> None:
        """Start a program there. It is found again by `processes`."""
        self._started = [each for each in self._started if each.poll() is None]
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        # The variables are for the program alone: what enters the namespaces keeps its own clock.
        variables = ["env", *(f"{name}={value}" for name, value in environment.items())]
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.enter(*become, *variables, *command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd,
                start_new_session=True,
            )
        self._started.append(process)

    def processes(self, *words: str) -> list[int]:
        """Return the ids of its processes whose command line has all the words, as seen from the run."""
        if self._init is None:
            return []
        found = []
        ours = Path(f"/proc/{self._pid}/ns/pid").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (process / "cmdline").read_bytes().decode(errors="replace")
                parts = line.split("\0")
                if (
                    all(any(word in part for part in parts) for word in words)
                    and (process / "ns/pid").readlink() == ours
                ):
                    found.append(int(process.name))
        return found

    def signal(self, number: signal.Signals, *words: str) -> None:
        """Send a signal to the processes whose command line has all the words."""
        pids = self.processes(*words)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if number is signal.SIGCONT:
            # nsenter stops itself with what it has started.
            for process in self._started:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)

    def filter_packets(self, table: str, *rules: tuple[str, str]) -> None:
        """Add rules for packets (chain "input" or "output", and the rule) in a table that `unfilter` removes."""
        lines = [f"table inet {table} {{"]
        for chain in ("input", "output"):
            own = [rule for its_chain, rule in rules if its_chain == chain]
            lines += [f"chain {chain} {{", f"type filter hook {chain} priority 0; policy accept;", *own, "}"]
        self.run("nft", "\n".join([*lines, "}"]))

    def unfilter(self, table: str) -> None:
        """Remove a table of rules; after a reboot there is none."""
        self.run("nft", "delete", "table", "inet", table, check=False)

    def delay(self, least_s: float) -> Callable[[], None]:
        """Delay all that it sends and receives; returns what undoes it."""
        tap = f"ft{self.ip.rpartition('.')[2]}"
        self.run("env", f"PYTHONPATH={Path(__file__).parents[1]}", *CHECKSUMS_OFF)
        _run("ip", "link", "set", self._device, "nomaster")
        delay = Delay(self._device, tap, least_s)
        _run("ip", "link", "set", tap, "master", BRIDGE, "up")

        def undo() -> None:
            delay.close()
            _run("ip", "link", "set", self._device, "master", BRIDGE)

        return undo

    def throttle(self, rate: str | None) -> None:
        """Let it send no faster than ``rate``, with a queue of up to 400 ms; None: as fast as it can."""
        if rate is None:
            self.run("tc", "qdisc", "del", "dev", "eth0", "root", check=False)
        else:
            options = ["rate", rate, "burst", "4kb", "latency", "400ms"]
            self.run("tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", *options)


def remove_control_groups(name: str) -> None:
    """Remove the control groups with this name and those in them, which do not end with the processes of a host."""
    for parent in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        for folder in (*sorted((path for path in parent.rglob("*") if path.is_dir()), reverse=True), parent):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout
