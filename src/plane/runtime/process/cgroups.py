"""Control groups for backends that are processes: limits for all their descendants, and their resource usage.

Supports versions 1 and 2, where this process may create groups below its own. `process.start` creates groups,
`process.runtime` measures and removes them. `launch` makes a process enter its group before it becomes the backend.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from pathlib import Path

import structlog

from plane.protocol.spawn import ResourceLimits
from plane.runtime.host_usage import ResourceUsage, process_usage
from plane.runtime.process.procfs import kill_pids, members, read_file

__all__ = ["Cgroup", "Cgroups"]

# A backend with more processes and threads is broken or hostile.
PIDS_LIMIT = 4096
DEFAULT_CPU_PERIOD_US = 100_000
# How often killing the members, and removing the group, is attempted.
ATTEMPTS = 200
ATTEMPT_INTERVAL_S = 0.005
# A younger group without members may be about to be entered.
ABANDONED_AGE_S = 60.0
PREFIX = "plane-"
# Entering a group of version 1 takes milliseconds per controller, so a backend enters only those that it needs.
V1_CONTROLLERS = ("memory", "cpu", "pids")
V2_CONTROLLERS = ("memory", "cpu", "pids")

log = structlog.get_logger("plane.runtime")


class Cgroups:
    """Creates control groups.

    Args:
        parents: the parent folder by controller for version 1, under the key "" for version 2.
    """

    def __init__(self, parents: dict[str, Path]) -> None:
        self._parents = parents

    @classmethod
    def detect(cls, proc: Path = Path("/proc/self")) -> Cgroups | None:
        """Return what this process may use; None unless memory, CPU and number of processes can all be limited.

        A process that is the only member of its group of version 2 is moved into a child group.
        """
        mounts: dict[str, Path] = {}
        for line in (proc / "mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            root, mount = before.split()[3:5]
            if root == "/" and kind == "cgroup":
                mounts |= {name: Path(mount) for name in options.rpartition(" ")[2].split(",")}
            elif root == "/" and kind == "cgroup2":
                mounts[""] = Path(mount)
        own: dict[str, str] = {}
        for line in (proc / "cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            own |= {name: path.lstrip("/") for name in names.split(",")}
        try:
            if all(name in mounts and name in own for name in V1_CONTROLLERS):
                parents = {name: mounts[name] / own[name] for name in V1_CONTROLLERS}
            elif "" in mounts and "" in own:
                parents = {"": _delegated(mounts[""] / own[""])}
            else:
                return None
            groups = cls(parents)
            groups.remove_abandoned()
            groups.create(f"probe-{os.getpid()}", ResourceLimits()).remove()
        except OSError as error:
            log.info("control groups not available", reason=str(error))
            return None
        return groups

    def remove_abandoned(self) -> None:
        """Remove groups without members that a killed drone has left."""
        for parent in self._parents.values():
            for path in parent.glob(f"{PREFIX}*"):
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > ABANDONED_AGE_S:
                        path.rmdir()

    def create(self, backend_id: str, limits: ResourceLimits) -> Cgroup:
        """Create a group with these limits.

        Raises:
            OSError: the group cannot be created, or the kernel refuses a limit.
        """
        unneeded = set()
        if limits.memory_limit_bytes is None:
            unneeded.add("memory")
        if limits.cpu_period_percent is None:
            unneeded.add("cpu")
        paths = self.group_of(backend_id).paths
        group = Cgroup({name: path for name, path in paths.items() if name not in unneeded})
        group.create(limits)
        return group

    def group_of(self, backend_id: str) -> Cgroup:
        """Return the backend's group with all controllers. Some or all of its folders may not exist."""
        return Cgroup({name: parent / f"{PREFIX}{backend_id}" for name, parent in self._parents.items()})


def _delegated(own: Path) -> Path:
    """Enable controllers of version 2 below ``own``, which must have no member but this process.

    Raises:
        OSError: they cannot be enabled.
    """
    control = own / "cgroup.subtree_control"
    missing = set(V2_CONTROLLERS) - set(control.read_text().split())
    if missing:
        if members(own) not in ([], [os.getpid()]):
            raise PermissionError(f"{own} has other members than this drone; see Delegate= of systemd")
        leaf = own / "plane-drone"
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()))
        control.write_text(" ".join(f"+{name}" for name in sorted(missing)))
    return own


class Cgroup:
    """One backend's group.

    Attributes:
        paths: its folder by controller; the drone stores them to find the group again after a restart.
    """

    def __init__(self, paths: dict[str, Path]) -> None:
        self.paths = paths

    @property
    def member_files(self) -> list[str]:
        """The files that a process with one thread writes 0 (itself) to, to enter the group."""
        # In version 1 a thread that writes 0 to `tasks` moves without the lock that moving whole processes takes.
        # Writing its own id instead would take the lock.
        name = "cgroup.procs" if "" in self.paths else "tasks"
        return [str(path / name) for path in self.paths.values()]

    def create(self, limits: ResourceLimits) -> None:
        """Create the folders and set the limits.

        Raises:
            OSError: the group cannot be created, or the kernel refuses a limit.
        """
        for path in self.paths.values():
            path.mkdir(exist_ok=True)
        period = limits.cpu_period or DEFAULT_CPU_PERIOD_US
        percent = limits.cpu_period_percent
        memory = limits.memory_limit_bytes
        if "" in self.paths:
            self._write("", "pids.max", PIDS_LIMIT)
            if memory is not None:
                self._write("", "memory.max", memory)
                self._write_if_exists("", "memory.swap.max", 0)
            if percent is not None:
                self._write("", "cpu.max", f"{period * percent // 100} {period}")
            return
        self._write("pids", "pids.max", PIDS_LIMIT)
        if memory is not None:
            self._write("memory", "memory.limit_in_bytes", memory)
            self._write_if_exists("memory", "memory.memsw.limit_in_bytes", memory)
        if percent is not None:
            self._write("cpu", "cpu.cfs_period_us", period)
            self._write("cpu", "cpu.cfs_quota_us", period * percent // 100)

    def _write(self, controller: str, name: str, value: object) -> None:
        (self.paths[controller] / name).write_text(str(value))

    def _write_if_exists(self, controller: str, name: str, value: object) -> None:
        if (self.paths[controller] / name).exists():
            self._write(controller, name, value)

    def members(self) -> list[int]:
        """Return the ids of its processes."""
        return members(self.paths.get("") or self.paths["pids"])

    def kill_all(self, spare: Collection[int] = ()) -> None:
        """SIGKILL all members but ``spare``, repeatedly until none is left, also while they fork. Blocks."""
        for _ in range(ATTEMPTS):
            found = [pid for pid in self.members() if pid not in spare]
            if not found:
                return
            kill_pids(found)
            time.sleep(ATTEMPT_INTERVAL_S)

    def usage(self) -> ResourceUsage:
        """Return the resource usage of the members.

        Raises:
            OSError: the group was removed.
        """
        if "" in self.paths:
            path = self.paths[""]
            cpu = _pairs(path / "cpu.stat").get("usage_usec", 0) * 1000
            return ResourceUsage(_number(path / "memory.current"), _pairs(path / "memory.stat"), cpu)
        usage = process_usage(self.members())
        if memory := self.paths.get("memory"):
            used, stat = _number(memory / "memory.usage_in_bytes"), _pairs(memory / "memory.stat")
            usage = ResourceUsage(used, stat, usage.cpu_ns)
        return usage

    def ran_out_of_memory(self) -> bool:
        """Return whether the kernel has killed a member because the group reached its memory limit."""
        path = self.paths.get("") or self.paths.get("memory")
        if path is None:
            return False
        name = "memory.events" if "" in self.paths else "memory.oom_control"
        try:
            return _pairs(path / name).get("oom_kill", 0) > 0
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the group once its members have ended. Blocks until then, for a second at most."""
        for path in self.paths.values():
            for _ in range(ATTEMPTS):
                try:
                    path.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(ATTEMPT_INTERVAL_S)
                else:
                    break
            else:
                log.warning("control group not removed", path=str(path))


def _number(path: Path) -> int:
    return int(read_file(str(path)))


def _pairs(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in read_file(str(path)).decode().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
