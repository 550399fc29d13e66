"""Read the resources of this machine, and the resource usage of processes, from /proc.

Called by `process.runtime` every few seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from plane.runtime.process.procfs import read_file

__all__ = ["ResourceUsage", "host_cpu_ns", "host_memory_bytes", "process_usage"]

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """Resource usage of a set of processes.

    Attributes:
        memory_stat: bytes, by the names of a control group's memory.stat.
        cpu_ns: CPU time since their start.
    """

    memory_bytes: int
    memory_stat: dict[str, int]
    cpu_ns: int


def host_cpu_ns() -> int:
    """Return the CPU time of all processes since the machine's start, idle time included, as Docker counts it."""
    # user nice system idle iowait irq softirq steal; the guests' times are part of the first two.
    ticks = read_file("/proc/stat").split(b"\n", 1)[0].split()[1:9]
    return sum(map(int, ticks)) * _TICK_NS


def host_memory_bytes() -> int:
    """Return the size of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES


def process_usage(pids: Iterable[int]) -> ResourceUsage:
    """Return the total usage of the processes. Processes that have ended count as zero.

    The CPU time of an ended process counts once its parent has waited for it. Shared resident pages are counted for
    each process.
    """
    resident = shared = cpu_ticks = 0
    for pid in pids:
        try:
            stat = read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            pages = read_file(f"/proc/{pid}/statm").split()
        except OSError:
            continue
        # Fields 14 to 17 of the whole line: utime, stime, cutime and cstime. See proc(5).
        cpu_ticks += sum(map(int, stat[11:15]))
        resident += int(pages[1]) * _PAGE_BYTES
        shared += int(pages[2]) * _PAGE_BYTES
    return ResourceUsage(resident, {"anon": resident - shared, "file": shared}, cpu_ticks * _TICK_NS)
