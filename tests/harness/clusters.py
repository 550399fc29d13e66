"""Whole clusters of real programs for acceptance tests, and what a user does with one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.ports import free_port
from harness.program import Program, program
from plane.dev.demo import visible_folders
from plane.runtime.process.environments import EnvironmentReader
from plane.runtime.process.procfs import kill_marked

__all__ = [
    "AS_DRONE",
    "Cluster",
    "dev_cluster",
    "dev_key",
    "end_backends",
    "exposed",
    "free_port",
    "processes_of",
    "separate_parts",
    "until",
]

BACKEND = (Path(__file__).parent / "backend_program.py").read_text()
LIMIT_S = 30.0
# For backends without isolation that run this checkout or write beside the test, where only its user may enter.
AS_DRONE = ("--backend-user", "root") if os.geteuid() == 0 else ()
GRACE_S = 2.0


def until(condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Wait until ``condition`` holds."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Cluster:
    """A running cluster. ``image``: of its Docker drone; None: it runs processes."""

    control_urls: list[str]
    proxy_port: int
    image: str | None = None
    # For the control API.
    api_key: str | None = None
    programs: dict[str, Program] = field(default_factory=dict)
    spawned: list[str] = field(default_factory=list)
    arguments_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Starts a part (again), with its arguments.
    start_again: Callable[[str], Program] = field(default=lambda part: pytest.fail(f"no {part} to start"))
    # Of its processes; None: what the drone takes by itself.
    isolation: str | None = None

    def executable(self, **env: str) -> dict[str, Any]:
        """What runs the tests' backend program in this cluster."""
        variables = {"CODE": BACKEND, **env}
        if self.image is not None:
            return {"image": self.image, "pull_policy": "Never", "env": variables}
        command = [sys.executable, "-c", "import os; exec(os.environ['CODE'])"]
        return {"command": command, "env": variables, "isolation": self.isolation}

    def call(self, method: str, path: str, body: Any = None, controller: int = 0) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        url = self.control_urls[controller % len(self.control_urls)] + path
        headers = {"Content-Type": "application/json"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return self._request(urllib.request.Request(url, data, headers, method=method))

    def connect(self, controller: int = 0, **request: Any) -> dict[str, Any]:
        """A connect request that must succeed; with a drone that has just connected, as soon as that takes work."""
        answers: list[Answer] = []

        def is_answered() -> bool:
            answers.append(self.call("POST", "/ctrl/connect", request, controller))
            return b'"NoDroneAvailable"' not in answers[-1].body

        until(is_answered)
        assert answers[-1].status == 200, answers[-1].body
        body: dict[str, Any] = answers[-1].json()
        if body["backend_id"] not in self.spawned:
            self.spawned.append(body["backend_id"])
        return body

    def spawn(self, key: str | None = None, *, spawn: dict[str, Any] | None = None, **env: str) -> dict[str, Any]:
        """A backend that runs the tests' program, for a key."""
        config = {"executable": self.executable(**env), **(spawn or {})}
        return self.connect(spawn_config=config, key=None if key is None else {"name": key})

    def get(self, url: str, path: str = "", timeout_s: float = LIMIT_S) -> Answer:
        """A browser's request: to the URL that Plane gave."""
        return self._request(urllib.request.Request(url + path), timeout_s)

    def _request(self, request: urllib.request.Request, timeout_s: float = LIMIT_S) -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def status(self, backend: str) -> dict[str, Any]:
        entry: dict[str, Any] = self.call("GET", f"/pub/b/{backend}/status").json()
        return entry

    def until_status(self, backend: str, status: str, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """Wait for a status; returns the state with all that those know who may ask the control API."""
        try:
            until(lambda: self.status(backend)["status"] == status, limit_s)
        except AssertionError as error:
            raise AssertionError(f"not {status} within {limit_s:g} s: {self._states(backend)}") from error
        return self._states(backend)[-1]

    def _states(self, backend: str) -> list[dict[str, Any]]:
        states: list[dict[str, Any]] = self.call("GET", f"/ctrl/b/{backend}").json()["states"]
        return states

    def history(self, backend: str) -> list[dict[str, Any]]:
        """All entries of the status stream, which must end by itself."""
        text = self.call("GET", f"/pub/b/{backend}/status-stream").body.decode()
        return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]

    def tunnel(self, url: str) -> socket.socket:
        """An upgraded connection to the backend, through the proxy."""
        client = socket.create_connection(("127.0.0.1", self.proxy_port), timeout=LIMIT_S)
        path = "/" + url.split("/", 3)[3] + "upgrade"
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost:{self.proxy_port}\r\n"
            "Connection: Upgrade\r\nUpgrade: echo\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        return client


@contextmanager
def separate_parts(
    db: str,
    folder: Path,
    *,
    controllers: int = 2,
    docker: tuple[Path, str] | None = None,
    drone: tuple[str, ...] = ("--terminate-on-exit",),
    proxy: tuple[str, ...] = (),
) -> Iterator[Cluster]:
    """Controllers, a drone and a proxy as programs of their own.

    ``docker``: an engine's socket and an image. ``drone``: more options of it; what outlives it is ended afterwards.
    ``proxy``: more options of the proxy.
    """
    proxy_port = free_port()
    name = f"localhost:{proxy_port}"
    with ExitStack() as stack:
        cluster = Cluster([], proxy_port, docker[1] if docker else None)

        def start(part: str, *arguments: str) -> Program:
            cluster.arguments_of[part] = arguments
            running = stack.enter_context(program([part.split("-")[0], *arguments], folder, part))
            cluster.programs[part] = running
            return running

        cluster.start_again = lambda part: start(part, *cluster.arguments_of[part])
        stack.callback(lambda: end_backends(cluster.spawned, docker[0] if docker else None))

        for number in range(controllers):
            port = free_port()
            cluster.control_urls.append(f"http://127.0.0.1:{port}")
            start(f"controller-{number}", "--db", db, "--port", str(port), "--default-cluster", name)
        for number in range(controllers):
            cluster.programs[f"controller-{number}"].says("controller listening")
        runtime = ("docker", "--docker-socket", str(docker[0])) if docker else ("process",)
        nodes = ("--controller-url", cluster.control_urls[0], "--cluster", name)
        options = ["--soft-terminate-grace", str(GRACE_S), *exposed(), *drone]
        if "--db" not in drone:
            options += ["--db", str(folder / "drone.sqlite")]
        start("drone", *nodes, "--name", "dr-test", "--runtime", *runtime, *options)
        start("proxy", *nodes, "--name", "px-test", "--host", "127.0.0.1", "--http-port", str(proxy_port), *proxy)
        until(lambda: _is_ready(cluster, name))
        yield cluster


def exposed() -> tuple[str, ...]:
    """Options that let isolated backends read Python and this checkout, which may be below /tmp."""
    return tuple(word for path in visible_folders() for word in ("--expose", str(path)))


def processes_of(backend: str) -> list[int]:
    """The processes that carry the backend's id in their environment."""
    marker = f"SESSION_BACKEND_ID={backend}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if marker in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def end_backends(backends: Iterable[str], engine: Path | None) -> None:
    """End what has outlived its drone."""
    for backend in backends:
        kill_marked(backend, reader=EnvironmentReader())
        if engine is not None:
            subprocess.run(["docker", "-H", f"unix://{engine}", "rm", "-f", f"plane-{backend}"], capture_output=True)


def _is_ready(cluster: Cluster, name: str) -> bool:
    state = cluster.call("GET", f"/ctrl/c/{name}/state").json()
    return bool(state["drones"] and state["proxies"])


@contextmanager
def dev_cluster(folder: Path, *options: str, **environment: str) -> Iterator[Cluster]:
    """`plane dev` in ``folder``, with ``environment`` besides the test's own."""
    port, proxy_port = free_port(), free_port()
    arguments = ["dev", "--port", str(port), "--proxy-port", str(proxy_port), *options]
    with program(arguments, folder, f"dev-{port}", **environment) as running:
        running.says("Ctrl-C ends everything")
        cluster = Cluster([f"http://127.0.0.1:{port}"], proxy_port, programs={"dev": running})
        cluster.api_key = dev_key(folder)
        yield cluster


def dev_key(folder: Path) -> str:
    """The API key of a `plane dev` in ``folder``, with the data folder by default."""
    return (folder / ".plane" / "api-key").read_text().strip()
