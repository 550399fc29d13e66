"""What this machine has, and what processes of it use, from /proc. Asked by `process.runtime` every few seconds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "host_cpu_ns", "host_memory_bytes", "process_usage"]

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes, and nanoseconds of CPU since the start. ``memory``: by the names of a control group's memory.stat."""

    memory_bytes: int
    memory: dict[str, int]
    cpu_ns: int


def host_cpu_ns() -> int:
    """CPU time that all processes have used since the machine's start, idle time included, as Docker counts it."""
    # user nice system idle iowait irq softirq steal; the guests' times are part of the first two.
    ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(map(int, ticks)) * _TICK_NS


def host_memory_bytes() -> int:
    """How much memory there is."""
    return os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES


def process_usage(pids: Iterable[int]) -> Usage:
    """What these processes use together; those that are gone use nothing.

    CPU time of what has ended counts once its parent has waited for it. Resident pages that are shared are counted for
    each process.
    """
    resident = shared = cpu_ticks = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            pages = Path(f"/proc/{pid}/statm").read_text().split()
        except OSError:
            continue
        # utime, stime, cutime and cstime: fields 14 to 17 of all.
        cpu_ticks += sum(map(int, stat[11:15]))
        resident += int(pages[1]) * _PAGE_BYTES
        shared += int(pages[2]) * _PAGE_BYTES
    return Usage(resident, {"anon": resident - shared, "file": shared}, cpu_ticks * _TICK_NS)
