"""Find and signal processes of this machine through /proc: by descent, and by a backend's id in their environment.

Also used by the drone's watchdog, so this file imports only the standard library.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from plane.runtime.process.environments import EnvironmentReader

__all__ = [
    "DRONE_MARK",
    "descendants",
    "first_descendant",
    "is_alive",
    "is_marked",
    "is_stopped",
    "kill_marked",
    "kill_pids",
    "marked_backends",
    "marked_ports",
    "members",
    "read_file",
    "signal_descendant",
    "signal_process",
    "start_time",
]

# The environment variable that names the drone of a backend.
DRONE_MARK = "PLANE_DRONE"
# A process may fork while the list is read; its child is found in the next round.
ROUNDS = 20
# What one call reads; most files of the kernel are shorter.
READ_BYTES = 16 * 1024


def read_file(path: str) -> bytes:
    """Return the content of a file of the kernel. Takes 8 us, and pathlib 19: drones read hundreds a second.

    Bytes, because the name of a process need not be text.

    Raises:
        OSError: it cannot be read, for example because the process has ended.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        content = b""
        while part := os.read(descriptor, READ_BYTES):
            content += part
        return content
    finally:
        os.close(descriptor)


def first_descendant(pid: int, *, depth: int) -> int | None:
    """Return the first child of the first child and so on, ``depth`` generations below ``pid``, or None."""
    for _ in range(depth):
        try:
            children = read_file(f"/proc/{pid}/task/{pid}/children").split()
        except OSError:
            return None
        if not children:
            return None
        pid = int(children[0])
    return pid


def signal_descendant(pid: int, started_at: int, *, depth: int, number: signal.Signals) -> bool:
    """Signal a first descendant of the process ``pid`` that started at ``started_at``, see `first_descendant`.

    Return False if there is none.
    """
    target = first_descendant(pid, depth=depth)
    # Checked again once the pidfd is open: from then on it cannot mean a later process with the same id.
    return target is not None and _signal(
        target, number, lambda: first_descendant(pid, depth=depth) == target and start_time(pid) == started_at
    )


def signal_process(pid: int, started_at: int, number: signal.Signals) -> bool:
    """Signal the process ``pid`` that started at ``started_at``. Return False if it does not run."""
    return pid > 0 and _signal(pid, number, lambda: start_time(pid) == started_at)


def _signal(pid: int, number: signal.Signals, is_target: Callable[[], bool]) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_target():
            return False
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pidfd)
    return True


def start_time(pid: int) -> int:
    """Return when the process started, in clock ticks since the machine's start; -1 if there is no such process."""
    try:
        stat = read_file(f"/proc/{pid}/stat")
    except OSError:
        return -1
    # The command name is in parentheses and may contain parentheses. Field 22 of the whole line; see proc(5).
    return int(stat.rpartition(b")")[2].split()[19])


def is_stopped(pid: int) -> bool:
    """Return whether the process is stopped, by a signal or by a debugger."""
    return _state(pid)[0] in ("T", "t")


def is_alive(pid: int) -> bool:
    """Return whether the process runs. A zombie does not, unless it has threads that run."""
    state, threads = _state(pid)
    return state not in ("", "X") and (state != "Z" or threads > 1)


def _state(pid: int) -> tuple[str, int]:
    """Return the state of a process and the number of its threads; "" and 0 if there is none. See proc(5)."""
    try:
        fields = read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return "", 0
    return fields[0].decode(), int(fields[17])


def descendants(*pids: int) -> list[int]:
    """Return the processes and all their descendants, each once, except those that have changed their parent."""
    found = list(dict.fromkeys(pids))
    seen = set(found)
    for parent in found:
        children = [pid for pid in _children(parent) if pid not in seen]
        found += children
        seen.update(children)
    return found


def _children(pid: int) -> list[int]:
    """Return the children of a process: each of its threads has those that it has created."""
    children: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - names, not paths
    except OSError:
        return children
    for thread in threads:
        try:
            children += map(int, read_file(f"/proc/{pid}/task/{thread}/children").split())
        except OSError:
            # The thread has just ended; its children belong to another thread.
            continue
    return children


def members(group: Path) -> list[int]:
    """Return the ids of the processes in a control group; none if the group does not exist."""
    try:
        return [int(pid) for pid in read_file(f"{group}/cgroup.procs").split()]
    except OSError:
        return []


def kill_pids(pids: Iterable[int]) -> None:
    """SIGKILL all of the processes that exist and may be killed."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def kill_marked(*backend_ids: str, reader: EnvironmentReader, spare: Collection[int] = ()) -> set[str]:
    """SIGKILL the processes with one of the ids in their environment, and all their descendants. Blocks.

    The processes ``spare`` are not killed, but their descendants are. Each round reads all processes of the machine
    once for all ids; rounds are repeated until none is found.

    Return the ids of which any process was found.

    Raises:
        OSError: see `EnvironmentReader.read`.
    """
    markers = {b"SESSION_BACKEND_ID=" + backend_id.encode(): backend_id for backend_id in backend_ids}
    spared = {os.getpid(), *spare}
    killed: set[str] = set()
    for _ in range(ROUNDS):
        marked: dict[str, list[int]] = {}
        for pid, environment in reader.read(_pids()).items():
            for mark in markers.keys() & set(environment):
                marked.setdefault(markers[mark], []).append(pid)
        # A fork bomb has thousands of processes: `descendants` visits each once.
        to_kill = {backend_id: set(descendants(*pids)) - spared for backend_id, pids in marked.items()}
        found = {backend_id for backend_id, pids in to_kill.items() if pids}
        if not found:
            break
        killed |= found
        for pids in to_kill.values():
            kill_pids(pids)
    return killed


def marked_backends(drone: str, reader: EnvironmentReader) -> set[str]:
    """Return the ids of the backends of a drone that have a process with its `DRONE_MARK` in its environment.

    Raises:
        OSError: see `EnvironmentReader.read`.
    """
    mark, prefix = f"{DRONE_MARK}={drone}".encode(), b"SESSION_BACKEND_ID="
    environments = reader.read([pid for pid in _pids() if pid != os.getpid()]).values()
    return {
        entry.removeprefix(prefix).decode(errors="replace")
        for environment in environments
        if mark in environment
        for entry in environment
        if entry.startswith(prefix)
    }


def marked_ports(backend_id: str, reader: EnvironmentReader) -> set[int]:
    """Return the values of ``PORT`` in the environments of the backend's processes.

    Raises:
        OSError: see `EnvironmentReader.read`.
    """
    mark, prefix = b"SESSION_BACKEND_ID=" + backend_id.encode(), b"PORT="
    values = {
        entry.removeprefix(prefix)
        for environment in reader.read(_pids()).values()
        if mark in environment
        for entry in environment
        if entry.startswith(prefix)
    }
    return {int(value) for value in values if value.isdigit() and len(value) < 6}


def is_marked(pid: int, backend_id: str, reader: EnvironmentReader) -> bool:
    """Return whether the process was started with the backend's id in its environment."""
    return b"SESSION_BACKEND_ID=" + backend_id.encode() in reader.read([pid]).get(pid, ())


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names, not paths
