"""The embedded PostgreSQL: first and later starts, a killed owner, and a second server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from harness.clusters import until
from plane.database.embedded.server import embedded_postgres
from plane.protocol.errors import ConfigurationError

OWNER = """
import asyncio, sys
from pathlib import Path
from plane.database.embedded.server import embedded_postgres

async def main():
    async with embedded_postgres(Path(sys.argv[1])):
        print("runs", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def ask(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def servers(folder: Path) -> int:
    found = subprocess.run(["pgrep", "-f", str(folder)], check=False, capture_output=True, text=True)
    return len(found.stdout.split())


async def test_data_survives_the_server(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path / "pg") as url:
        await ask(url, "CREATE TABLE kept AS SELECT 7 AS n")
        assert await ask(url, "SHOW fsync") == "on"
        assert await ask(url, "SHOW listen_addresses") == ""
    until(lambda: servers(tmp_path) == 0)
    async with embedded_postgres(tmp_path / "pg") as url:
        assert await ask(url, "SELECT n FROM kept") == 7


async def test_server_ends_with_a_killed_owner_and_restarts(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path / "pg")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"runs\n"
        owner.send_signal(signal.SIGKILL)
    async with embedded_postgres(tmp_path / "pg") as url:
        assert await ask(url, "SELECT 1") == 1


async def test_second_server_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path / "pg"):
        with pytest.raises(ConfigurationError, match=r"in use by another PostgreSQL \(process \d+\)"):
            async with embedded_postgres(tmp_path / "pg", stop_timeout_s=0.3):
                pass


async def test_private_and_long_folders_work(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for folder in (private / "pg", tmp_path / ("x" * 120) / "pg"):
        async with embedded_postgres(folder) as url:
            assert await ask(url, "SELECT 1") == 1


async def test_failed_start_has_its_reason(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path / "pg"):
        pass
    (tmp_path / "pg" / "data" / "postgresql.conf").write_text("nonsense = 1\n")
    with pytest.raises(ConfigurationError, match="unrecognized configuration parameter"):
        async with embedded_postgres(tmp_path / "pg"):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's databases lie elsewhere")
async def test_only_the_database_of_a_deleted_folder_is_removed(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for folder in (private / "deleted", private / "kept"):
        async with embedded_postgres(folder):
            pass
    deleted, kept = ((private / name / "data").readlink().parent for name in ("deleted", "kept"))
    shutil.rmtree(private / "deleted")
    # What another user has put there, to make root wait, or remove what it leads to.
    strange = [Path(f"/var/tmp/plane-postgres-{name}-{os.getpid()}") for name in ("fifo", "link", "theirs")]
    victim = tmp_path / "victim"
    shutil.copytree(kept, victim, ignore=shutil.ignore_patterns("socket"))
    (victim / "origin").write_text(f"{tmp_path.stat().st_dev} {private}/deleted")
    try:
        strange[0].mkdir()
        os.mkfifo(strange[0] / "origin")
        strange[1].symlink_to(victim)
        strange[2].mkdir()
        (strange[2] / "origin").write_text(f"{tmp_path.stat().st_dev} {private}/deleted")
        os.chown(strange[2] / "origin", 65534, 65534)
        async with embedded_postgres(private / "kept") as url:
            assert await ask(url, "SELECT 1") == 1
        assert not deleted.exists()
        assert kept.exists()
        assert (victim / "data").exists()
        assert all(os.path.lexists(path) for path in strange)
    finally:
        strange[1].unlink()
        for path in (strange[0], strange[2]):
            shutil.rmtree(path)
    shutil.rmtree(kept)
