"""Looks at the processes of this machine through /proc: descendants, and those that carry a backend's id.

Also used by the drone's watchdog, so nothing but the standard library is imported here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

__all__ = [
    "DRONE_MARK",
    "descendants",
    "first_descendant",
    "is_alive",
    "is_marked",
    "is_stopped",
    "kill_each",
    "kill_marked",
    "marked_backends",
    "marked_ports",
    "members",
    "signal_descendant",
    "signal_process",
    "start_time",
]

# The variable that names the drone of a backend, in the environment of all its processes.
DRONE_MARK = "PLANE_DRONE"
# A process may fork while the list is read; then its child is found on the next round.
ROUNDS = 20


def first_descendant(pid: int, *, depth: int) -> int | None:
    """The first child of the first child …, ``depth`` generations below ``pid``; None if there is none."""
    for _ in range(depth):
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return None
        if not children:
            return None
        pid = int(children[0])
    return pid


def signal_descendant(pid: int, started_at: int, *, depth: int, number: signal.Signals) -> bool:
    """Signal the first descendant of the process ``pid`` that started at ``started_at``; False: it is not there."""
    target = first_descendant(pid, depth=depth)
    # Looked at again once the pidfd is open: from then on it means this process and no other that gets its id.
    return target is not None and _signal(
        target, number, lambda: first_descendant(pid, depth=depth) == target and start_time(pid) == started_at
    )


def signal_process(pid: int, started_at: int, number: signal.Signals) -> bool:
    """Signal the process ``pid`` that started at ``started_at``; False: it is not there."""
    return pid > 0 and _signal(pid, number, lambda: start_time(pid) == started_at)


def _signal(pid: int, number: signal.Signals, is_the_one: Callable[[], bool]) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_the_one():
            return False
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pidfd)
    return True


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since the machine's start; -1 if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    # The name of the command is in parentheses and may contain any. Field 22 of all; see proc(5).
    return int(stat.rpartition(")")[2].split()[19])


def is_stopped(pid: int) -> bool:
    """Whether the process was stopped, by a signal or by a debugger."""
    return _state(pid)[0] in ("T", "t")


def is_alive(pid: int) -> bool:
    """Whether the process runs: a zombie does not, unless it has threads that do."""
    state, threads = _state(pid)
    return state not in ("", "X") and (state != "Z" or threads > 1)


def _state(pid: int) -> tuple[str, int]:
    """The state of a process, and the number of its threads; "" and 0 if there is none. See proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[17])


def descendants(*pids: int) -> list[int]:
    """The processes, their children, and theirs, each once, as far as they have not been given to another parent."""
    found = list(dict.fromkeys(pids))
    seen = set(found)
    for parent in found:
        children = [pid for pid in _children(parent) if pid not in seen]
        found += children
        seen.update(children)
    return found


def _children(pid: int) -> list[int]:
    """The children of all threads of a process: each thread has those that it has made."""
    children: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - names, not paths
    except OSError:
        return children
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children") as file:  # noqa: PTH123 - a third of pathlib's time
                children += map(int, file.read().split())
        except OSError:
            # The thread has just ended; its children are another's.
            continue
    return children


def members(group: Path) -> list[int]:
    """The processes in a control group; none if it is gone."""
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def kill_each(pids: Iterable[int]) -> None:
    """SIGKILL for those that are there and may be killed."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def kill_marked(*backend_ids: str, spare: Collection[int] = ()) -> set[str]:
    """SIGKILL for all processes that have one of the ids in their environment, but ``spare``, until there is none.

    And for their descendants, those of ``spare`` as well, which may have another environment. The processes of the
    machine are looked at once for all ids, and again until none is found. Returns the ids of which there was any.
    """
    markers = {b"SESSION_BACKEND_ID=" + backend_id.encode(): backend_id for backend_id in backend_ids}
    spared = {os.getpid(), *spare}
    killed: set[str] = set()
    for _ in range(ROUNDS):
        marked: dict[str, list[int]] = {}
        for pid in _pids():
            for mark in markers.keys() & set(_environment(pid)):
                marked.setdefault(markers[mark], []).append(pid)
        # A fork bomb has thousands of them: each is looked at once.
        doomed = {backend_id: set(descendants(*pids)) - spared for backend_id, pids in marked.items()}
        found = {backend_id for backend_id, pids in doomed.items() if pids}
        if not found:
            break
        killed |= found
        for pids in doomed.values():
            kill_each(pids)
    return killed


def marked_backends(drone: str) -> set[str]:
    """Return the ids of the backends of a drone that have a process with its `DRONE_MARK` in its environment."""
    mark, prefix = f"{DRONE_MARK}={drone}".encode(), b"SESSION_BACKEND_ID="
    environments = (_environment(pid) for pid in _pids() if pid != os.getpid())
    return {
        entry.removeprefix(prefix).decode(errors="replace")
        for environment in environments
        if mark in environment
        for entry in environment
        if entry.startswith(prefix)
    }


def marked_ports(backend_id: str) -> set[int]:
    """Return the values of ``PORT`` in the environments of the backend's processes."""
    mark, prefix = b"SESSION_BACKEND_ID=" + backend_id.encode(), b"PORT="
    values = {
        entry.removeprefix(prefix)
        for environment in map(_environment, _pids())
        if mark in environment
        for entry in environment
        if entry.startswith(prefix)
    }
    return {int(value) for value in values if value.isdigit() and len(value) < 6}


def is_marked(pid: int, backend_id: str) -> bool:
    """Whether the process was started with the backend's id in its environment."""
    return b"SESSION_BACKEND_ID=" + backend_id.encode() in _environment(pid)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names, not paths


def _environment(pid: int) -> list[bytes]:
    """Empty for a zombie, a kernel thread, or another user's process."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
