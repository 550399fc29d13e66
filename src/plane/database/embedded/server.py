"""The server process of the embedded PostgreSQL of `plane dev`, which ends with this process.

The server listens on a Unix socket only. PostgreSQL refuses to run as root: then it runs as the user that owns its
data, initially ``nobody``, in a folder that this user can reach. `embedded.binaries` provides its programs,
`embedded.account` its account and `embedded.home` its folders.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import structlog

from plane.database.embedded.account import Account, account_for
from plane.database.embedded.binaries import programs_for
from plane.database.embedded.home import server_home, serving_pid, socket_folder
from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError

__all__ = ["embedded_postgres"]

SUPERUSER = "postgres"
DATABASE = "plane"
INITDB_TIMEOUT_S = 60.0
# Recovery after a crash may take long, during which the server refuses connections.
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.01
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)

log = structlog.get_logger("plane.database")


@dataclass(frozen=True, slots=True)
class _Installation:
    """Folders of the server, and its account (None: that of this process)."""

    bin: Path
    home: Path
    socket_folder: Path
    account: Account | None

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "log"


@asynccontextmanager
async def embedded_postgres(
    folder: Path, preload: Path | None = None, *, stop_timeout_s: float = STOP_TIMEOUT_S
) -> AsyncIterator[str]:
    """Run a server with its data in ``folder`` while the block runs; yield the URL of its database.

    Args:
        folder: created if it does not exist.
        preload: a library to load before the server's own (ld.so(8)); a benchmark uses it to slow down the disk.
        stop_timeout_s: for a former server to end, and for each step of the shutdown.

    Raises:
        ConfigurationError: it cannot start; the message has the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    account = account_for(folder / "data")
    with programs_for(account) as programs:
        home = server_home(folder, account)
        place = _Installation(programs, home, socket_folder(home, account), account)
        if not (place.data / "PG_VERSION").exists():
            await asyncio.to_thread(_initialise, place)
        await _wait_for_former_server(place, stop_timeout_s)
        server = _start(place, preload)
        try:
            yield await _wait_until_ready(server, place)
        finally:
            await _stop(server, stop_timeout_s)


def _initialise(place: _Installation) -> None:
    """Create the data folder atomically."""
    unfinished = place.home / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if place.account is not None:
        place.account.own(unfinished)
    command = [
        str(place.bin / "initdb"),
        *("--pgdata", str(unfinished), "--username", SUPERUSER, "--auth", "trust"),
        *("--encoding", "UTF8", "--locale", "C", "--no-instructions"),
    ]
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            command,
            cwd="/",
            env=_environment(),
            **_popen(place.account),
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"the embedded PostgreSQL cannot be set up: {error_reason(error)}") from error
    if done.returncode != 0:
        raise ConfigurationError(f"the embedded PostgreSQL cannot be set up:\n{done.stderr.strip()}")
    unfinished.rename(place.data)


def _popen(account: Account | None) -> dict[str, Any]:
    return {} if account is None else account.popen


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}


async def _wait_for_former_server(place: _Installation, timeout_s: float) -> None:
    """Wait until a server of a killed process has ended, which it does by itself."""
    pid_file = place.data / "postmaster.pid"
    try:
        async with asyncio.timeout(timeout_s):
            while (pid := serving_pid(place.data)) is not None:
                await asyncio.sleep(POLL_INTERVAL_S)
    except TimeoutError:
        raise ConfigurationError(
            f"{place.data} is in use by another PostgreSQL (process {pid}); stop it, or use another --data-dir"
        ) from None
    pid_file.unlink(missing_ok=True)


def _start(place: _Installation, preload: Path | None) -> subprocess.Popen[bytes]:
    """Start the server, on the calling thread: the server ends with the thread that started it."""
    parent = os.getpid()

    def end_with_parent() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    command: Sequence[str] = [
        str(place.bin / "postgres"),
        *("-D", str(place.data), "-k", str(place.socket_folder), "-c", "listen_addresses="),
    ]
    # Links are not followed: if this process is root, the folder may belong to the server's account.
    log_flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(place.log, log_flags, 0o644), "wb") as output:
        return subprocess.Popen(  # noqa: S603 - our own command
            command,
            cwd="/",
            env={**_environment(), **({"LD_PRELOAD": str(preload)} if preload else {})},
            **_popen(place.account),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C on the terminal must reach only this process, which then stops the server.
            start_new_session=True,
            # It calls only prctl and getppid, which are safe between fork and exec.
            preexec_fn=end_with_parent,
        )


async def _wait_until_ready(server: subprocess.Popen[bytes], place: _Installation) -> str:
    """Return the URL when the server accepts connections and has our database."""
    host = quote(str(place.socket_folder), safe="")
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                if server.poll() is not None:
                    raise ConfigurationError(f"the embedded PostgreSQL ended while starting:\n{_tail(place.log)}")
                try:
                    await _ensure_database(f"postgresql:///postgres?host={host}&user={SUPERUSER}")
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(POLL_INTERVAL_S)
                else:
                    return f"postgresql:///{DATABASE}?host={host}&user={SUPERUSER}"
    except TimeoutError:
        raise ConfigurationError(
            f"the embedded PostgreSQL did not start within {START_TIMEOUT_S:.0f} s:\n{_tail(place.log)}"
        ) from None


async def _ensure_database(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:].strip()


async def _stop(server: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Shut the server down: fast at first, then immediately (the next start recovers), then by SIGKILL."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if server.poll() is None:
            server.send_signal(number)
        try:
            async with asyncio.timeout(timeout_s):
                while server.poll() is None:
                    await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError:
            log.warning("embedded PostgreSQL does not stop", pid=server.pid, signal=number.name)
        else:
            return
