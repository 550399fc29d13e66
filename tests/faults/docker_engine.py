"""A Docker engine on a host: its bridge, its image, and the faults that happen to the engine alone."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time

from faults.hosts import Host, remove_control_groups
from harness.real_parts import pack_python

__all__ = ["IMAGE", "DockerHost"]

IMAGE = "faults:python"
# The program is in $CODE, as for processes.
COMMAND = """CMD ["/usr/bin/python3", "-S", "-E", "-c", "import os; exec(os.environ['CODE'])"]"""
BRIDGE = "docker-faults"
BRIDGE_ADDRESS = "172.30.0.1/24"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
WORDS = ("dockerd", "--config-file")


class DockerHost:
    """The engine of one host. Containers outlive an engine that is killed (live-restore), as in many clusters.

    Args:
        control_group: parent of the control groups of its containers.
    """

    def __init__(self, host: Host, control_group: str) -> None:
        self._host = host
        self._folder = host.folder / "docker"
        self._folder.mkdir()
        self.socket = self._folder / "docker.sock"
        self._control_group = control_group
        settings = {
            "data-root": str(self._folder / "data"),
            "exec-root": str(self._folder / "exec"),
            "pidfile": str(self._folder / "pid"),
            "hosts": [f"unix://{self.socket}"],
            "bridge": BRIDGE,
            "iptables": False,
            "ip6tables": False,
            "live-restore": True,
            "cgroup-parent": control_group,
            "shutdown-timeout": 1,
        }
        (self._folder / "daemon.json").write_text(json.dumps(settings))

    def prepare(self) -> None:
        """Start the engine for the first time, with the image that all containers have."""
        self.boot()
        archive = self._folder / "python.tar"
        pack_python(archive)
        self._docker("import", "--change", COMMAND, str(archive), IMAGE)
        archive.unlink()

    def boot(self) -> None:
        """Start the engine after the host was started."""
        for command in (
            ("link", "add", BRIDGE, "type", "bridge"),
            ("addr", "add", BRIDGE_ADDRESS, "dev", BRIDGE),
            ("link", "set", BRIDGE, "up"),
        ):
            self._host.run("ip", *command)
        self.start()

    def start(self) -> None:
        """Start the engine, and return when it responds."""
        # Their processes are gone; others may have their ids, which begin anew with the host.
        if not self._host.processes(*WORDS):
            (self._folder / "pid").unlink(missing_ok=True)
        if not self._host.processes("containerd", "--config"):
            (self._folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)
        command = ["dockerd", "--config-file", str(self._folder / "daemon.json")]
        self._host.start(command, self._folder / "log", {}, self._folder)
        end = time.monotonic() + START_TIMEOUT_S
        while self._docker("version", check=False) != 0:
            if time.monotonic() > end:
                raise TimeoutError(f"dockerd does not start:\n{(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self, number: signal.Signals) -> None:
        """End the engine, and return when it has ended."""
        self.signal(number)
        end = time.monotonic() + STOP_TIMEOUT_S
        while self._host.processes(*WORDS):
            if time.monotonic() > end:
                self.signal(signal.SIGKILL)
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the engine, not to its containers."""
        self._host.signal(number, *WORDS)

    def remove_control_groups(self) -> None:
        """Remove the control groups of its containers, which do not end with the host."""
        remove_control_groups(self._control_group.removeprefix("/"))

    def _docker(self, *arguments: str, check: bool = True) -> int:
        program = shutil.which("docker") or "docker"
        command = self._host.enter(program, "-H", f"unix://{self.socket}", *arguments)
        return subprocess.run(command, check=check, capture_output=True).returncode
