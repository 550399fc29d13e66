"""Metrics of backends at every controller's API, and the controllers' own for Prometheus."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, fake_drone, fake_proxy
from plane import timing

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}
USAGE = {
    "mem_used": 1,
    "mem_total": 2,
    "mem_active": 3,
    "mem_inactive": 4,
    "mem_unevictable": 5,
    "mem_limit": 6,
    "cpu_used": 7,
    "sys_cpu": 8,
}


async def usage(api: Api, backend: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            status, body = await api.call("GET", f"/ctrl/b/{backend}/metrics")
            if status == 200:
                found: dict[str, Any] = body
                return found
            assert (status, body["kind"]) == (404, "NotFound")
            await asyncio.sleep(0.02)


async def samples(api: Api) -> dict[tuple[str, tuple[str, ...]], float]:
    status, text = await api.call("GET", "/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_reach_the_api_of_every_controller(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as near,
        controller_api(postgres_url) as far,
        fake_drone(near.base) as drone,
    ):
        backend = (await near.connect(spawn_config=IMAGE))["backend_id"]
        status, body = await far.call("GET", f"/ctrl/b/{backend}/metrics")
        assert (status, body["message"]) == (404, "No recent metrics for this backend")
        status, body = await far.call("GET", "/ctrl/b/unknown/metrics")
        assert (status, body["message"]) == (404, "Backend does not exist")
        await drone.send("BackendMetrics", {"backend_id": backend, **USAGE})
        for api in (near, far):
            heard = await usage(api, backend)
            assert heard.pop("time") > 1_600_000_000_000
            assert heard == {"backend_id": backend, **USAGE}
            assert (await samples(api))["plane_backends_memory_used_bytes", ()] == 1
        # The documented spelling with the cluster.
        assert (await far.call("GET", f"/ctrl/c/{CLUSTER}/b/{backend}/metrics"))[0] == 200


async def test_metrics_of_plane_0_5_5_are_accepted_and_invalid_ones_are_not(
    postgres_url: str,
) -> None:
    async with controller_api(postgres_url) as api:
        connection = await asyncpg.connect(postgres_url)
        try:
            for text in ("nonsense", '{"kind": "backend_metrics", "timestamp": "2026-11-24T00:21:54Z", "key": "b"}'):
                await connection.execute("SELECT pg_notify('plane_backend_metrics', $1)", text)
            await connection.execute(
                "SELECT pg_notify('plane_backend_metrics', jsonb_build_object('kind', 'backend_metrics', 'key', 'b',"
                " 'timestamp', now(), 'payload', $1::jsonb)::text)",
                '{"backend_id": "b", "mem_used": 9, "mem_total": 2, "mem_active": 3, "mem_inactive": 4,'
                ' "mem_unevictable": 5, "mem_limit": 6, "cpu_used": 7, "sys_cpu": 8}',
            )
        finally:
            await connection.close()
        assert (await usage(api, "b"))["mem_used"] == 9


async def test_old_metrics_are_forgotten(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "METRICS_RETENTION_S", 0.3)
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        await drone.send("BackendMetrics", {"backend_id": "b", **USAGE})
        await usage(api, "b")
        async with asyncio.timeout(10):
            while (await api.call("GET", "/ctrl/b/b/metrics"))[0] == 200:
                await asyncio.sleep(0.05)
        assert (await samples(api))["plane_backends_measured", ()] == 0


async def test_prometheus_metrics_reflect_the_controller(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base), fake_proxy(api.base):
        for number in range(3):
            await api.connect(key={"name": f"k{number}"}, spawn_config=IMAGE)
        await api.call("GET", "/ctrl/nothing")
        await api.call("DELETE", "/ctrl/connect")
        found = await samples(api)
        assert found["plane_http_requests_total", ("/ctrl/connect", "POST", "200")] == 3
        assert found["plane_http_requests_total", ("none", "any", "404")] == 1
        assert found["plane_http_requests_total", ("none", "any", "405")] == 1
        assert found["plane_http_request_seconds_count", ("/ctrl/connect",)] == 3
        assert found["plane_nodes_connected", ("Drone",)] == found["plane_nodes_connected", ("Proxy",)] == 1
        assert found["plane_event_bus_listening", ()] == 1
        assert found["plane_database_batched_writes_total", ("spawns",)] == 3
        assert not any("connect/" in label for _, labels in found for label in labels)
