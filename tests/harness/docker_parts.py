"""A Docker engine of a test's own, which may be stopped, killed and frozen, and a registry on loopback with a password.

The engine has a bridge of its own and leaves the machine's packet filter alone, so that others are not disturbed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import real_parts
from harness.clusters import free_port, until

__all__ = ["OwnDocker", "Registry", "own_docker", "own_registry"]

START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0
# An HTTP server of two megabytes.
TINY_COMMAND = """CMD ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/"]"""


class OwnDocker:
    """An engine. ``config`` is its daemon.json; "second" is a runtime beside its default, and is runc too."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.socket = folder / "docker.sock"
        self._folder = folder
        self.bridge = f"pln{secrets.token_hex(4)}"
        self.process: subprocess.Popen[bytes] | None = None
        runtimes = {"second": {"path": shutil.which("runc") or "runc"}}
        settings = {
            "data-root": str(folder / "data"),
            "exec-root": str(folder / "exec"),
            "pidfile": str(folder / "pid"),
            "hosts": [f"unix://{self.socket}"],
            "bridge": self.bridge,
            "iptables": False,
            "ip6tables": False,
            "runtimes": runtimes,
            # The tiny image's program, which is the first of its container, does not hear SIGTERM.
            "shutdown-timeout": 1,
            **config,
        }
        (folder / "daemon.json").write_text(json.dumps(settings))

    def start(self) -> None:
        """Start it, and return when it answers."""
        with (self._folder / "dockerd.log").open("ab") as log:
            command = ["dockerd", "--config-file", str(self._folder / "daemon.json")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            until(lambda: self.run("version", check=False).returncode == 0, START_LIMIT_S)
        except AssertionError:
            pytest.fail(f"dockerd does not start:\n{(self._folder / 'dockerd.log').read_text()[-800:]}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(STOP_LIMIT_S)
        # containerd dies with an engine that is killed. Where nobody waits for it, it would be taken for alive.
        if number is signal.SIGKILL:
            (self._folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The docker command."""
        command = ["docker", "-H", f"unix://{self.socket}", *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True)

    def inspect(self, container: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.run("inspect", container).stdout)
        return found[0]

    def tiny_image(self, name: str) -> str:
        """Make an image of busybox that answers HTTP."""
        archive = self._folder / "tiny.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add("/bin/busybox", "bin/busybox")
            tar.add("/bin/busybox", "bin/sh")
        self.run("import", "--change", TINY_COMMAND, str(archive), name)
        return name

    def end(self) -> None:
        """End it and what it runs, by their ids."""
        assert self.process is not None
        if self.process.poll() is not None:
            self.start()
        self.thaw()
        containers = self.run("ps", "-aq", check=False).stdout.split()
        if containers:
            self.run("rm", "-f", *containers, check=False)
        # Their bridges would stay.
        self.run("network", "prune", "--force", check=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self._folder / "exec/containerd/containerd.pid").read_text()), signal.SIGTERM)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)


@contextmanager
def own_docker(**config: Any) -> Iterator[OwnDocker]:
    """An engine that runs while the block does."""
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        real_parts.missing("a Docker engine that may be started (root, and Debian's docker.io)")
    # A test's own folder has too long a path for the engine's sockets.
    folder = Path(tempfile.mkdtemp(prefix="pd-"))
    engine = OwnDocker(folder, **config)
    real_parts.make_bridge(engine.bridge)
    engine.start()
    try:
        yield engine
    finally:
        engine.end()
        shutil.rmtree(folder, ignore_errors=True)


class Registry:
    """A registry on loopback that wants a user and a password."""

    user, password = "reader", "opensesame"

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"


@contextmanager
def own_registry(folder: Path) -> Iterator[Registry]:
    """Debian's docker-registry, started by hand."""
    if not (shutil.which("docker-registry") and shutil.which("htpasswd")):
        real_parts.missing("a Docker registry (Debian's docker-registry and apache2-utils)")
    folder.mkdir(parents=True, exist_ok=True)
    registry = Registry(free_port())
    made = subprocess.run(
        ["htpasswd", "-Bbn", registry.user, registry.password], check=True, capture_output=True, text=True
    )
    (folder / "htpasswd").write_text(made.stdout)
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": registry.host},
        "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
    }
    # JSON is YAML.
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log, start_new_session=True
        )
    try:
        until(lambda: _asks_for_password(registry.host), START_LIMIT_S)
        yield registry
    finally:
        process.terminate()
        process.wait(STOP_LIMIT_S)


def _asks_for_password(host: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{host}/v2/", timeout=5):
            return False
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 401
    except OSError:
        time.sleep(0.05)
        return False
