"""PostgreSQL on two hosts: a primary, and a synchronous standby that takes over. There is never a second primary."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from faults.hosts import Host

__all__ = ["PORT", "PostgresPair"]

PORT = 5432
USER = "postgres"
TIMEOUT_S = 60.0
SETTINGS = (
    "listen_addresses=*",
    "max_connections=300",
    "fsync=off",
    "wal_log_hints=on",
    "hot_standby=on",
    "synchronous_commit=on",
    "synchronous_standby_names=*",
    # A standby that is cut off is noticed soon, and so is a primary.
    "wal_sender_timeout=5s",
    "wal_receiver_timeout=5s",
)


class PostgresPair:
    """The two servers.

    Args:
        environment: of the server processes, by host name.
    """

    def __init__(self, first: Host, second: Host, environment: Callable[[Host], dict[str, str]]) -> None:
        self.binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        self.primary, self.standby = first, second
        self._environment = environment
        self.url = f"postgresql://{USER}@{first.ip}:{PORT},{second.ip}:{PORT}/postgres"

    def start(self) -> None:
        """Make both, and return when the standby receives every commit before it is acknowledged."""
        data = self._data(self.primary)
        self._as_user(self.primary, "initdb", "-D", str(data), "-A", "trust", "-U", USER, "--no-sync")
        with (data / "pg_hba.conf").open("a") as file:
            file.write("host all all 10.77.0.0/24 trust\nhost replication all 10.77.0.0/24 trust\n")
        self.start_server(self.primary)
        self._follow()

    def start_server(self, host: Host) -> None:
        """Start the server of a host, and return when it accepts connections."""
        command = [
            str(self.binaries / "postgres"),
            "-D",
            str(self._data(host)),
            "-k",
            str(host.folder),
            "-p",
            str(PORT),
        ]
        command += [part for setting in SETTINGS for part in ("-c", setting)]
        host.start(command, host.folder / "log", self._environment(host), Path("/"), user=USER)
        self._until(lambda: self._accepts(host), f"PostgreSQL on {host.name} accepts no connections")

    def stop_server(self, host: Host, number: signal.Signals) -> None:
        """End the server of a host: SIGINT fast, SIGQUIT as if it had crashed."""
        host.signal(number, "bin/postgres", "-D")
        self._until(lambda: not host.processes("bin/postgres", "-D"), f"PostgreSQL on {host.name} does not end")

    def fail_over(self) -> None:
        """Crash the primary, let the standby take over, and make the former primary its standby."""
        self._until(self.is_synchronous, "the standby does not follow")
        self.stop_server(self.primary, signal.SIGQUIT)
        self._as_user(self.standby, "pg_ctl", "promote", "-D", str(self._data(self.standby)))
        self.primary, self.standby = self.standby, self.primary
        self._follow()

    def is_synchronous(self) -> bool:
        """Whether the standby has every commit that was acknowledged."""
        return self.query("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1"

    def query(self, statement: str) -> str:
        """Return what the primary says to a statement with one value; empty: it says nothing."""
        host = self.primary
        return host.run(
            "psql", "-h", str(host.folder), "-p", str(PORT), "-U", USER, "-Atc", statement, check=False
        ).strip()

    def _follow(self) -> None:
        """Make the standby anew from the primary."""
        data = self._data(self.standby)
        shutil.rmtree(data, ignore_errors=True)
        source = f"host={self.primary.ip} port={PORT} user={USER} application_name={self.standby.name}"
        self._as_user(
            self.standby,
            "pg_basebackup",
            "-D",
            str(data),
            "-d",
            source,
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "--no-sync",
        )
        self.start_server(self.standby)
        self._until(self.is_synchronous, "the standby does not follow")

    def _data(self, host: Host) -> Path:
        shutil.chown(host.folder, USER)
        return host.folder / "data"

    def _accepts(self, host: Host) -> bool:
        command = host.enter("pg_isready", "-h", host.ip, "-p", str(PORT))
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def _as_user(self, host: Host, program: str, *arguments: str) -> None:
        user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
        host.run(*user, str(self.binaries / program), *arguments)

    def _until(self, condition: Callable[[], bool], failure: str) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(failure)
            time.sleep(0.1)
