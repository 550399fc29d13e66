"""Controllers killed at every step of connect: nothing is left half done, and the next connect works."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from harness import failpoints
from harness.clusters import free_port
from harness.controllers import controller_api
from harness.fake_node import CLUSTER, obedient_drone

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}


async def until_it_listens(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def count(sql: asyncpg.Connection[Any], what: str) -> int:
    number: int = await sql.fetchval(f"SELECT count(*) FROM {what}")
    return number


@pytest.mark.parametrize("expired", [False, True], ids=["a new key", "an expired key"])
@pytest.mark.parametrize("step", failpoints.STEPS)
async def test_nothing_is_left_half_done(step: str, expired: bool, postgres_url: str, tmp_path: Path) -> None:
    async with (
        controller_api(postgres_url) as survivor,
        obedient_drone(survivor.base) as spawned,
        aiohttp.ClientSession() as http,
    ):
        sql = await asyncpg.connect(postgres_url)
        if expired:
            await survivor.connect(key={"name": "k"}, spawn_config=IMAGE)
            await sql.execute("UPDATE backend_key SET expires_at = now() - interval '1 second'")
        port = free_port()
        command = [sys.executable, failpoints.__file__, step, "controller", "--db", postgres_url, "--port", str(port)]
        with (tmp_path / "log").open("wb") as log:
            doomed = subprocess.Popen([*command, "--default-cluster", CLUSTER], stdout=log, stderr=log)
        try:
            await until_it_listens(port)
            with pytest.raises(aiohttp.ClientError):
                await http.post(
                    f"http://127.0.0.1:{port}/ctrl/connect", json={"key": {"name": "k"}, "spawn_config": IMAGE}
                )
            assert doomed.wait(30) == 9
        finally:
            doomed.kill()
            doomed.wait()
        # Whatever was under way in PostgreSQL is over.
        async with asyncio.timeout(10):
            while await count(sql, "pg_stat_activity WHERE datname = current_database() AND state = 'active'") > 1:
                await asyncio.sleep(0.02)
        assert await count(sql, "backend_key k LEFT JOIN backend b ON b.id = k.id WHERE b.id IS NULL") == 0
        lost = "backend b WHERE NOT EXISTS (SELECT FROM backend_action a WHERE a.backend_id = b.id)"
        assert await count(sql, lost) == 0
        # The key works at once, and whatever holds it has reached the drone.
        answer = await survivor.connect(key={"name": "k"}, spawn_config=IMAGE)
        async with asyncio.timeout(10):
            while answer["backend_id"] not in spawned:
                await asyncio.sleep(0.02)
        held = await sql.fetch("SELECT id FROM backend_key WHERE key_name = 'k'")
        assert [row["id"] for row in held] == [answer["backend_id"]]
        assert len(spawned) == await count(sql, "backend") <= (2 if expired else 1)
        await sql.close()
