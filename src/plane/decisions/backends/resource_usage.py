"""Convert samples of Docker and readings of control groups to `BackendMetrics`.

The runtimes call this every `plane.timing.METRICS_INTERVAL_S`. Rules: `docs/reference/protocol/drone.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plane.protocol.drone_messages import BackendMetrics

__all__ = ["CpuCounter", "container_metrics", "process_metrics"]

# The entries of memory.stat that add up to mem_total, for both versions of control groups.
V1_TOTAL = ("total_rss", "total_cache")
V2_TOTAL = ("anon", "file", "kernel_stack", "sock", "slab")


@dataclass(slots=True)
class CpuCounter:
    """The last readings of one backend's CPU time and of the whole system's, in nanoseconds."""

    _own_ns: int | None = None
    _system_ns: int = 0

    def delta(self, own_ns: int, system_ns: int) -> tuple[int, int] | None:
        """Return the CPU times since the last reading; None for the first one. Never negative: counters may restart."""
        before = None if self._own_ns is None else (self._own_ns, self._system_ns)
        self._own_ns, self._system_ns = own_ns, system_ns
        if before is None:
            return None
        return max(0, own_ns - before[0]), max(0, system_ns - before[1])


def container_metrics(backend_id: str, sample: Mapping[str, Any], counter: CpuCounter) -> BackendMetrics | None:
    """Convert one sample of Docker's statistics; None if it is the first one, or of a container that does not run."""
    memory = sample.get("memory_stats") or {}
    cpu = sample.get("cpu_stats") or {}
    own = (cpu.get("cpu_usage") or {}).get("total_usage")
    # Docker's first sample has no system time, and a sample of a stopped container has no memory.
    if own is None or "system_cpu_usage" not in cpu or "usage" not in memory:
        return None
    delta = counter.delta(own, cpu["system_cpu_usage"])
    return process_metrics(backend_id, memory["usage"], memory.get("stats") or {}, memory.get("limit", 0), delta)


def process_metrics(
    backend_id: str, used: int, stat: Mapping[str, int], limit: int, cpu_delta: tuple[int, int] | None
) -> BackendMetrics | None:
    """Convert a control group's memory usage and its memory.stat, of either version; None without CPU times."""
    if cpu_delta is None:
        return None
    # Version 1 has separate entries that include the descendants of a group.
    prefix = "total_" if "total_rss" in stat else ""
    return BackendMetrics(
        backend_id=backend_id,
        mem_used=max(0, used - stat.get(f"{prefix}inactive_file", 0)),
        mem_total=sum(stat.get(name, 0) for name in (V1_TOTAL if prefix else V2_TOTAL)),
        mem_active=stat.get(f"{prefix}active_anon", 0) + stat.get(f"{prefix}active_file", 0),
        mem_inactive=stat.get(f"{prefix}inactive_anon", 0) + stat.get(f"{prefix}inactive_file", 0),
        mem_unevictable=stat.get(f"{prefix}unevictable", 0),
        mem_limit=min(limit, 2**63 - 1),
        cpu_used=cpu_delta[0],
        sys_cpu=cpu_delta[1],
    )
