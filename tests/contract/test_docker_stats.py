"""Samples of an engine's statistics, on both versions of control groups, become `BackendMetrics`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plane.decisions.backends.resource_usage import CpuCounter, container_metrics
from plane.protocol import codec

SAMPLES = Path(__file__).parent / "docker_stats"


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            "cgroup_v1",
            {
                # usage - total_inactive_file; total_rss + total_cache; active and inactive: anon + file.
                "mem_used": 561152,
                "mem_total": 53248 + 32768,
                "mem_active": 4096 + 32768,
                "mem_inactive": 49152,
                "mem_unevictable": 0,
                "mem_limit": 52428800,
            },
        ),
        (
            "cgroup_v2",
            {
                # usage - inactive_file; anon + file + kernel_stack + sock + slab.
                "mem_used": 7000064 - 356352,
                "mem_total": 5361664 + 401408 + 32768 + 4096 + 1011392,
                "mem_active": 16384 + 40960,
                "mem_inactive": 5349376 + 356352,
                "mem_unevictable": 8192,
                "mem_limit": 67108864,
            },
        ),
    ],
)
def test_samples(version: str, expected: dict[str, Any]) -> None:
    samples = json.loads((SAMPLES / f"{version}.json").read_text())
    clock = CpuCounter()
    assert container_metrics("b", samples["first"], clock) is None
    metrics = container_metrics("b", samples["second"], clock)
    assert metrics is not None
    shown = codec.to_builtins(metrics)
    first, second = samples["first"]["cpu_stats"], samples["second"]["cpu_stats"]
    assert shown.pop("backend_id") == "b"
    assert shown.pop("cpu_used") == second["cpu_usage"]["total_usage"] - first["cpu_usage"]["total_usage"]
    assert shown.pop("sys_cpu") == second["system_cpu_usage"] - first["system_cpu_usage"]
    assert shown == expected
    assert container_metrics("b", samples["stopped"], clock) is None
