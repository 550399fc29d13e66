"""The programs of a run, each on a host of its own: controllers, drones, proxies, and the database's two servers.

Hosts named ``docker-1``, … have a drone too, and a Docker engine.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

from faults.docker_engine import DockerHost
from faults.hosts import Host
from faults.postgres_pair import PostgresPair
from faults.schedule import DATABASE

__all__ = ["CLUSTER", "CONTROLLER_PORT", "DOCKER_POOL", "PROXY_PORT", "FaultyCluster", "Part"]

PLANE = Path(sys.executable).parent / "plane"
INJECTED = Path(__file__).parent / "injected"
CONTROLLER_PORT = 8080
PROXY_PORT = 9090
CLUSTER = f"plane.test:{PROXY_PORT}"
GRACE_S = 2
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
RESTART_AFTER_S = 5.0
DISK_BYTES = 24 * 2**20
NUMBERS = {DATABASE: 10, "controller": 20, "drone": 30, "docker": 35, "proxy": 40}
# Backends on Docker drones are of this pool, since their executables are other ones.
DOCKER_POOL = "docker"


@dataclass
class Part:
    """A program on its host. ``role``: the subcommand of `plane`. ``engine``: of a drone that runs containers."""

    role: str
    host: Host
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    engine: DockerHost | None = None
    _started_at: float | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def words(self) -> tuple[str, ...]:
        """Words of its command line."""
        return ("bin/plane", self.role)

    @property
    def is_running(self) -> bool:
        return bool(self.host.processes(*self.words))

    @property
    def log(self) -> Path:
        return self.host.folder / "log"

    @property
    def store(self) -> Path:
        """The state store of a drone."""
        return self.host.folder / "store" / "drone.sqlite"

    def start(self) -> None:
        """Start the program."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        self._started_at = time.monotonic()
        self.host.start([str(PLANE), self.role, *self.arguments], self.log, self.environment, self.host.folder)

    def start_again(self) -> None:
        """Start the program if it has ended by itself, as systemd does: a controller ends that finds no database."""
        with self._lock:
            is_due = self._started_at is not None and time.monotonic() - self._started_at > RESTART_AFTER_S
            if is_due and not self.is_running:
                self._start()

    def signal(self, number: Signals) -> None:
        """Send a signal to the program, not to its watchdog."""
        self.host.signal(number, *self.words)

    def stop(self, number: Signals) -> None:
        """End the program, and return when it has ended. It stays away until it is started."""
        with self._lock:
            self._started_at = None
        self.signal(number)
        end = time.monotonic() + STOP_TIMEOUT_S
        while self.is_running:
            if time.monotonic() > end:
                self.signal(Signals.SIGKILL)
            time.sleep(0.05)


class FaultyCluster:
    """All hosts and programs.

    Args:
        planted: the name of a planted bug that all programs have; empty: none.
    """

    def __init__(self, folder: Path, counts: dict[str, int], planted: str = "") -> None:
        self.folder = folder
        self._planted = planted
        self.hosts = {
            f"{kind}-{number}": Host(f"{kind}-{number}", NUMBERS[kind] + number, folder)
            for kind, count in {DATABASE: 2, **counts}.items()
            for number in range(1, count + 1)
        }
        databases = [host for name, host in self.hosts.items() if name.startswith(DATABASE)]
        self.postgres = PostgresPair(databases[0], databases[1], self._database_environment)
        self.parts = {
            name: self._part(kind, host)
            for name, host in self.hosts.items()
            if (kind := name.partition("-")[0]) != DATABASE
        }

    def of_role(self, role: str) -> list[Part]:
        """Return the parts with a role."""
        return [part for part in self.parts.values() if part.role == role]

    def start(self) -> None:
        """Start everything, and return when it listens."""
        for drone in self.of_role("drone"):
            _make_disk(drone.store.parent)
        for host in self.hosts.values():
            host.boot()
        self.postgres.start()
        for part in self.of_role("controller"):
            part.start()
        for part in self.of_role("controller"):
            self._until(lambda part=part: "controller listening" in part.log.read_text(), part)  # type: ignore[misc]
        for part in self.parts.values():
            if part.engine is not None:
                part.engine.prepare()
            if part.role != "controller":
                part.start()

    def end(self) -> None:
        """End everything at once."""
        for host in self.hosts.values():
            host.power_off()
        for part in self.parts.values():
            if part.engine is not None:
                part.engine.remove_control_groups()

    def set_clock(self, host: Host, ahead_s: int = 0, rate: float = 1.0, period_ms: int = 0) -> None:
        """Set the time of day of a host's programs: so far ahead of the machine's, and so fast from now on.

        Args:
            period_ms: it is ahead in every other period of this length only; 0: all the time. Not for a database.
        """
        is_database = host.name.startswith(DATABASE)
        new = _clock(host).with_suffix(".new")
        new.write_text(f"{ahead_s:+d} x{rate}" if is_database else f"{ahead_s} {rate} {period_ms}")
        new.chmod(0o644)
        new.rename(_clock(host))

    def _part(self, kind: str, host: Host) -> Part:
        engine = DockerHost(host, f"/{self.folder.name}-{host.name}") if kind == "docker" else None
        role = "drone" if kind == "docker" else kind
        return Part(role, host, self._arguments(kind, host, engine), self._environment(host), engine)

    def _database_environment(self, host: Host) -> dict[str, str]:
        if not _clock(host).exists():
            self.set_clock(host)
        return {
            "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))),
            "FAKETIME_TIMESTAMP_FILE": str(_clock(host)),
            # All processes of the server see a step at the same moment, as they do on a real machine.
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def _environment(self, host: Host) -> dict[str, str]:
        self.set_clock(host)
        planted = {"FAULTS_PLANTED": self._planted} if self._planted else {}
        injected = {"PYTHONPATH": str(INJECTED), "FAULTS_CLOCK": str(_clock(host)), **planted}
        return {"PLANE_LOG": "info", "NO_COLOR": "1", **injected}

    def _arguments(self, kind: str, host: Host, engine: DockerHost | None) -> list[str]:
        number = int(host.name.partition("-")[2])
        if kind == "controller":
            return [
                *("--db", self.postgres.url, "--host", "0.0.0.0", "--port", str(CONTROLLER_PORT)),
                *("--name", f"co-{number}", "--default-cluster", CLUSTER),
                *("--controller-url", f"http://{host.ip}:{CONTROLLER_PORT}"),
            ]
        controllers = [name for name in self.hosts if name.startswith("controller")]
        controller = self.hosts[controllers[(number - 1) % len(controllers)]]
        node = ["--controller-url", f"http://{controller.ip}:{CONTROLLER_PORT}", "--cluster", CLUSTER]
        if kind == "proxy":
            return [*node, "--name", f"px-{number}", "--host", "0.0.0.0", "--http-port", str(PROXY_PORT)]
        drone = [
            *(*node, "--name", f"dr-{'docker-' if engine else ''}{number}", "--ip", host.ip),
            *("--db", str(host.folder / "store" / "drone.sqlite"), "--soft-terminate-grace", str(GRACE_S)),
        ]
        if engine is None:
            return [*drone, "--runtime", "process", "--backend-user", "root"]
        docker = ("--runtime", "docker", "--docker-socket", str(engine.socket), "--pool", DOCKER_POOL)
        return [*drone, *docker, "--mount-base", str(self.folder)]

    def _until(self, condition: Callable[[], bool], part: Part) -> None:
        end = time.monotonic() + START_TIMEOUT_S
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{part.name} does not start:\n{part.log.read_text()[-2000:]}")
            time.sleep(0.1)


def _clock(host: Host) -> Path:
    return host.folder / "clock"


def _make_disk(folder: Path) -> None:
    """Mount a small file system of its own, which may be filled and frozen. It is gone with the run's namespaces."""
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    folder.mkdir()
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
