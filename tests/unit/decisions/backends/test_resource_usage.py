"""Metrics from Docker's samples and control groups."""

from __future__ import annotations

from typing import Any

from plane.decisions.backends.resource_usage import CpuCounter, container_metrics, process_metrics


def sample(cpu_ns: int, system_ns: int, memory: dict[str, Any]) -> dict[str, Any]:
    return {
        "cpu_stats": {"cpu_usage": {"total_usage": cpu_ns}, "system_cpu_usage": system_ns},
        "memory_stats": memory,
    }


V2 = {"usage": 1000, "limit": 5000, "stats": {"anon": 300, "file": 200, "inactive_file": 90, "active_file": 110}}


def test_cpu_time_is_the_difference_of_two_samples() -> None:
    clock = CpuCounter()
    assert container_metrics("b", sample(100, 1000, V2), clock) is None
    second = container_metrics("b", sample(150, 3000, V2), clock)
    assert second is not None
    assert (second.cpu_used, second.sys_cpu) == (50, 2000)
    assert (second.mem_used, second.mem_total, second.mem_active, second.mem_inactive) == (910, 500, 110, 90)
    # Counters of a container that was started anew begin at zero.
    third = container_metrics("b", sample(10, 4000, V2), clock)
    assert third is not None
    assert third.cpu_used == 0


def test_a_first_sample_and_one_of_an_ended_container_have_no_metrics() -> None:
    samples: list[dict[str, Any]] = [{}, {"memory_stats": {}, "cpu_stats": {}}, sample(1, 1, {}), {"cpu_stats": None}]
    for incomplete in samples:
        assert container_metrics("b", incomplete, CpuCounter()) is None


def test_an_unlimited_memory_limit_fits_into_the_message() -> None:
    metrics = process_metrics("b", 10, {}, 2**64 - 1, (1, 1))
    assert metrics is not None
    assert metrics.mem_limit == 2**63 - 1
