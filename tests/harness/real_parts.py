"""The real parts that tests use: PostgreSQL and a Docker engine, started by hand once per test run.

Shared by the workers of one run: the first that needs a part starts it, under a lock in the run's folder; the run's
own process ends it. A part that is missing is a failure where ``CI`` is set, else a visible skip.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import secrets
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.ports import free_port

__all__ = [
    "ROOT_VARIABLE",
    "OwnPostgres",
    "docker_engine",
    "docker_image",
    "end_all",
    "has_ended",
    "missing",
    "pack_python",
    "postgres_server",
    "shared_folder",
]

ROOT_VARIABLE = "PLANE_TEST_ROOT"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 20.0
MEMORY_FOR_DATABASES = 4 << 30
IMAGE = "plane-test-python:latest"
# Runs the program in $CODE, so that one image serves all tests.
IMAGE_COMMAND = """CMD ["/usr/bin/python3", "-c", "import os; exec(os.environ['CODE'])"]"""


def missing(part: str) -> None:
    """Fail or skip the test that needs ``part``."""
    text = f"{part} is missing; as root on Debian, scripts/install_real_parts.sh installs it"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def _root() -> Path:
    return Path(os.environ[ROOT_VARIABLE])


def _databases() -> Path:
    """The folder for the data of servers: in memory if there is enough, where creating a database takes a fifth."""
    memory = Path("/dev/shm")
    if not (os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > MEMORY_FOR_DATABASES):
        return _root()
    folder = memory / _root().name
    folder.mkdir(exist_ok=True)
    # PostgreSQL runs as another user, and must get through.
    folder.chmod(0o755)
    return folder


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    with (_root() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def shared_folder(name: str, make: Callable[[Path], None], parent: Path | None = None) -> Path:
    """A folder for all tests of the run, which ``make`` fills for the first of them."""
    with _lock(name):
        folder = (parent or _root()) / name
        if not folder.exists():
            unfinished = folder.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
        return folder


def _remember(name: str, server: subprocess.Popen[bytes]) -> None:
    # It outlives the worker that started it, and is not waited for: nothing is to be warned of.
    server.returncode = 0
    (_root() / f"{name}.pid").write_text(str(server.pid))


def end_all() -> None:
    """End what this run started, by its ids."""
    for file in _root().glob("*.pid"):
        pid = int(file.read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
            _until(functools.partial(has_ended, pid), STOP_LIMIT_S)
    for file in _root().glob("*.bridge"):
        subprocess.run(["ip", "link", "del", file.read_text()], check=False, capture_output=True)
    shutil.rmtree(_databases(), ignore_errors=True)
    shutil.rmtree(_root(), ignore_errors=True)


def has_ended(pid: int) -> bool:
    """Whether that process is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def _until(condition: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


class OwnPostgres:
    """A PostgreSQL server that may be killed and started again; data in a folder of the run.

    ``standby_of``: a running server whose standby this one is. ``own_clock``: its clock may be set (`set_clock`).
    """

    def __init__(self, *settings: str, standby_of: OwnPostgres | None = None, own_clock: bool = False) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not binaries:
            missing("PostgreSQL")
        self._settings = ("listen_addresses=127.0.0.1", "max_connections=400", *settings)
        self._user = "postgres" if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=_databases()))
        if self._user:
            shutil.chown(self._folder, self._user)
        self._binaries = binaries[-1].parent
        self._port = free_port()
        self.server = f"postgresql://postgres@127.0.0.1:{self._port}"
        self.url = f"{self.server}/postgres"
        self.process: subprocess.Popen[bytes] | None = None
        data = self._folder / "data"
        make: list[str | Path] = ["cp", "-a", self._empty_data(), data]
        if standby_of is not None:
            make = [self._binaries / "pg_basebackup", "-D", data, "-d", standby_of.url, "-R", "-X", "stream"]
            make += ["-c", "fast", "--no-sync"]
        subprocess.run(make, check=True, user=self._user, cwd="/", capture_output=True)
        self._clock = self._folder / "clock"
        self._environment = dict(os.environ)
        if own_clock:
            self.set_clock(0)
            self._environment |= {
                "LD_PRELOAD": str(_faketime()),
                "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }

    def _empty_data(self) -> Path:
        """The data of a new server, made once for all of the run."""

        def make(folder: Path) -> None:
            if self._user:
                shutil.chown(folder, self._user)
            command: list[str | Path] = [self._binaries / "initdb", "-D", folder / "data", "-A", "trust"]
            command += ["-U", "postgres", "--no-sync"]
            subprocess.run(command, check=True, user=self._user, cwd="/", capture_output=True)

        return shared_folder("empty-postgres", make, _databases()) / "data"

    def set_clock(self, ahead_s: int) -> None:
        """Set the server's clock so far ahead of the machine's; negative: behind."""
        new = self._clock.with_suffix(".new")
        new.write_text(f"{ahead_s:+d}")
        new.chmod(0o644)
        new.rename(self._clock)

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        command: list[str | Path] = [
            self._binaries / "postgres",
            "-D",
            self._folder / "data",
            "-k",
            self._folder,
            "-p",
            str(self._port),
        ]
        command += [part for setting in self._settings for part in ("-c", setting)]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, user=self._user, cwd="/", stdout=log, stderr=log, start_new_session=True, env=self._environment
            )
        _until(lambda: _accepts(self._port), START_LIMIT_S)

    def stop(self, number: signal.Signals) -> None:
        """SIGINT: fast; SIGQUIT: as if it had crashed."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(STOP_LIMIT_S)

    def copy_files(self) -> None:
        """Keep a copy of its files as they are; while it does not run."""
        subprocess.run(["cp", "-a", self._folder / "data", self._folder / "copy"], check=True)

    def restore_files(self) -> None:
        """Put the files back as they were when they were copied; while it does not run."""
        shutil.rmtree(self._folder / "data")
        (self._folder / "copy").rename(self._folder / "data")


def _faketime() -> Path:
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        missing("faketime")
    return libraries[-1]


def postgres_server() -> str:
    """Start of the URL of the run's PostgreSQL server, without a database's name."""
    with _lock("postgres"):
        url_file = _root() / "postgres.url"
        if not url_file.exists():
            # Neither durability nor replication is tested with this one, and its databases are dropped soon.
            server = OwnPostgres(
                "fsync=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0", "autovacuum=off"
            )
            server.start()
            assert server.process is not None
            _remember("postgres", server.process)
            url_file.write_text(server.server)
        return url_file.read_text()


def _accepts(port: int) -> bool:
    ready = [shutil.which("pg_isready") or "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
    return subprocess.run(ready, check=False, capture_output=True).returncode == 0


def docker_engine() -> Path:
    """The socket of a Docker engine of this run's own."""
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        missing("a Docker engine that may be started (root, and Debian's docker.io)")
    with _lock("docker"):
        engine = _root() / "docker.sock"
        if not engine.exists():
            _start_dockerd(engine)
        return engine


def _start_dockerd(engine: Path) -> None:
    folder = _root() / "docker"
    folder.mkdir()
    command: list[str | Path] = ["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec"]
    command += ["--pidfile", folder / "pid", "-H", f"unix://{engine}"]
    # Two runs on one machine would give out the same addresses of the usual bridge.
    bridge = f"pln{secrets.token_hex(4)}"
    (_root() / "docker.bridge").write_text(bridge)
    make_bridge(bridge)
    # No name server answers there; a container that looks for its own name is told so at once.
    command += ["--bridge", bridge, "--iptables=false", "--ip6tables=false", "--dns", "127.0.0.1"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    _remember("docker", server)
    try:
        _until(lambda: _docker(engine, "version", check=False).returncode == 0, START_LIMIT_S)
    except TimeoutError:
        pytest.fail(f"dockerd does not start:\n{(folder / 'log').read_text()[-3000:]}")


def make_bridge(name: str) -> None:
    """Make a bridge with addresses that nobody else is likely to use."""
    for command in (
        ["ip", "link", "add", name, "type", "bridge"],
        ["ip", "addr", "add", f"{random_net()}.1/24", "dev", name],
        ["ip", "link", "set", name, "up"],
    ):
        subprocess.run(command, check=True, capture_output=True)


def random_net() -> str:
    """The first three numbers of addresses that nobody else is likely to use."""
    return f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"


def _docker(engine: Path, *args: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["docker", "-H", f"unix://{engine}", *args], check=check, capture_output=True)


def docker_image() -> str:
    """The name of an image with Python's interpreter and library, made from the files of this machine."""
    engine = docker_engine()
    with _lock("docker-image"):
        if _docker(engine, "image", "inspect", IMAGE, check=False).returncode != 0:
            archive = _root() / "image.tar"
            pack_python(archive)
            _docker(engine, "import", "--change", IMAGE_COMMAND, str(archive), IMAGE)
            archive.unlink()
    return IMAGE


def pack_python(archive: Path) -> None:
    """Python's interpreter, its library, a shell, and the shared objects that they need."""
    python = Path("/usr/bin/python3.11")
    library = Path("/usr/lib/python3.11")
    programs = [python, Path("/bin/busybox"), *library.glob("lib-dynload/*.so")]
    found = subprocess.run(["ldd", *programs], check=False, capture_output=True, text=True).stdout
    objects = {word for line in found.splitlines() for word in line.split() if word.startswith("/lib")}
    with tarfile.open(archive, "w", dereference=True) as tar:
        for path in sorted({str(python), *objects} - {"/bin/busybox:"}):
            if not path.endswith(":"):
                tar.add(path)
        tar.add(library, filter=lambda member: None if "/test" in member.name else member)
        tar.add("/bin/busybox", "bin/sh")
        tar.add("/bin/busybox", "bin/busybox")
        tar.add(python, "usr/bin/python3")
