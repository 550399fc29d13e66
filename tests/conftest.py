"""Fixtures that give tests their real parts; see `harness.real_parts`."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

# pytest keeps what garbage reported until it looks at it, and has no public way to look at it now.
from _pytest.unraisableexception import collect_unraisable
from hypothesis import HealthCheck, settings

from harness import real_parts

# How long an example takes says only how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_configure(config: pytest.Config) -> None:
    """The run's own process makes the folder in which its workers meet."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="plane-tests-")
        # PostgreSQL runs as another user, and must get through.
        Path(folder).chmod(0o755)
        os.environ[real_parts.ROOT_VARIABLE] = folder
        # Where `plane dev` notes its key, and the command line looks for it.
        os.environ["XDG_STATE_HOME"] = f"{folder}/state"


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        real_parts.end_all()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that may take longest begin first, so that no worker is left alone with one of them."""
    items.sort(key=_own_timeout_s, reverse=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a failed attempt left open, the attempt after it does not answer for."""
    if getattr(item, "execution_count", 1) > 1:
        gc.collect()
        with suppress(Exception):
            collect_unraisable(item.config)


def _own_timeout_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty database of the test's own."""
    yield from _database()


@pytest.fixture(scope="module")
def module_postgres_url() -> Iterator[str]:
    """An empty database for all tests of a module."""
    yield from _database()


def _database() -> Iterator[str]:
    server = real_parts.postgres_server()
    name = f"test_{secrets.token_hex(6)}"
    # By copying files, which takes less processor time than logging each page.
    asyncio.run(_execute(f"{server}/postgres", f"CREATE DATABASE {name} STRATEGY file_copy"))
    yield f"{server}/{name}"
    asyncio.run(_execute(f"{server}/postgres", f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def docker_engine() -> Path:
    """The Unix socket of a Docker engine."""
    return real_parts.docker_engine()


@pytest.fixture(scope="session")
def docker_image() -> str:
    """An image with Python, on that engine."""
    return real_parts.docker_image()


@pytest.fixture
def chromium() -> str:
    """The path of Debian's Chromium."""
    path = shutil.which("chromium")
    if path is None:
        real_parts.missing("Chromium")
    assert path is not None
    return path
