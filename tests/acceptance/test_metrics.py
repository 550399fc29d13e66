"""Metrics of running backends reach the database's channel every five seconds, from containers and from processes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from harness.clusters import separate_parts

LIMIT_S = 30.0
# Uses memory, and CPU.
BUSY = """
import os, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
kept = bytearray(os.urandom(40_000_000))
def work():
    while True: sum(range(1000))
threading.Thread(target=work, daemon=True).start()
class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.mark.parametrize("runtime", ["process", "docker"])
def test_what_a_backend_uses_is_told(
    request: pytest.FixtureRequest, postgres_url: str, tmp_path: Path, runtime: str
) -> None:
    docker = None
    if runtime == "docker":
        docker = (request.getfixturevalue("docker_engine"), request.getfixturevalue("docker_image"))
    with separate_parts(postgres_url, tmp_path, controllers=1, docker=docker) as cluster:
        executable = {**cluster.executable(CODE=BUSY), "resource_limits": {"memory_limit_bytes": 500_000_000}}
        backend = cluster.connect(spawn_config={"executable": executable})["backend_id"]
        cluster.until_status(backend, "ready")
        metrics = asyncio.run(heard(postgres_url, backend))
        assert 40_000_000 < metrics["mem_used"] < 500_000_000
        assert 40_000_000 < metrics["mem_total"] < 500_000_000
        assert metrics["mem_limit"] >= 499_000_000
        assert metrics["sys_cpu"] > 1_000_000_000
        # One thread that never rests, of which a busy machine may leave little.
        assert 100_000_000 < metrics["cpu_used"] <= metrics["sys_cpu"]
        cluster.call("POST", f"/ctrl/b/{backend}/hard-terminate")
        cluster.until_status(backend, "terminated")


async def heard(db: str, backend: str) -> dict[str, Any]:
    """The next measurement of a backend."""
    found: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def notified(*args: Any) -> None:
        event = json.loads(args[-1])
        if event["key"] == backend:
            found.put_nowait(event["payload"])

    connection = await asyncpg.connect(db)
    try:
        await connection.add_listener("plane_backend_metrics", notified)
        async with asyncio.timeout(LIMIT_S):
            return await found.get()
    finally:
        await connection.close()
