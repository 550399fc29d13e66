"""Both sides of the executor's socket against recordings of the original."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.enforcers import FakeEnforcer
from plane.executor.request_handler import RequestHandler
from plane.protocol import codec
from plane.protocol.drone_messages import BackendMetrics
from plane.protocol.keys import AcquiredKey
from plane.runtime.base import BackendFailed, RuntimeListener, SpawnRequest, StartupTimedOut
from plane.runtime.memory import MemoryRuntime
from plane.runtime.remote import RemoteRuntime
from plane.tasks import end_tasks
from plane.transport.json_lines import LineServer, serve_lines

GOLDEN = Path(__file__).parents[1] / "contract/golden/executor_socket.jsonl"
RECORDED = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
REQUESTS = [each["line"] for each in RECORDED if each["direction"] == "drone->executor"]
RESPONSES = [each["line"] for each in RECORDED if each["direction"] == "executor->drone"]
LIMIT_S = 10.0


def shape(value: Any) -> Any:
    """Names and types, without values; an error's text is free."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(member) for member in value]
    return type(value).__name__


@asynccontextmanager
async def executor(
    path: Path, kind: type[MemoryRuntime] = MemoryRuntime
) -> AsyncIterator[tuple[LineServer, MemoryRuntime]]:
    """Run an executor with backends in memory."""
    runtime = kind()
    it = RequestHandler(runtime, FakeEnforcer())
    lines = LineServer(it.handle)
    await runtime.start(
        RuntimeListener(
            lambda *exited: lines.send_event(it.exit_event(*exited)),
            lambda metrics: lines.send_event(it.metrics_event(metrics)),
        )
    )
    await it.remove_orphans()
    server = await serve_lines(path, lines)
    try:
        yield lines, runtime
    finally:
        server.close()
        # The connected drone has left; the connection is closed a moment later.
        async with lines._one_drone:
            pass
        await asyncio.sleep(0.01)


async def test_the_executor_responds_as_recorded(tmp_path: Path) -> None:
    shapes = [shape(line["message"]) for line in RESPONSES]
    async with executor(tmp_path / "socket") as (_, runtime):
        assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        received = 0
        for line in REQUESTS:
            writer.write(json.dumps(line).encode() + b"\n")
            async with asyncio.timeout(LIMIT_S):
                response = json.loads(await reader.readline())
            assert response["id"] == line["id"]
            assert shape(response["message"]) in shapes, response
            received += 1
        assert received == len(REQUESTS)
        assert runtime.spawned == ["k6xqveyu5dhqvw", "chosen-id"]
        # A repeated request has no further effect, and garbage is ignored.
        writer.write(b"garbage\n{}\n" + json.dumps(REQUESTS[1]).encode() + b"\n")
        async with asyncio.timeout(LIMIT_S):
            assert "Ok" in json.loads(await reader.readline())["message"]["SpawnResult"]
        assert runtime.spawned == ["k6xqveyu5dhqvw", "chosen-id"]
        runtime.exit("chosen-id", 0)
        async with asyncio.timeout(LIMIT_S):
            event = json.loads(await reader.readline())
        assert event == {"id": None, "message": {"TerminateEvent": {"backend_id": "chosen-id", "exit_code": 0}}}
        writer.close()
        # Events wait for the next drone.
        runtime.exit("k6xqveyu5dhqvw", 9)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        async with asyncio.timeout(LIMIT_S):
            assert json.loads(await reader.readline())["message"]["TerminateEvent"]["exit_code"] == 9
        writer.close()


class Defective(MemoryRuntime):
    """Fails in a way that no runtime should."""

    async def spawn(self, *arguments: Any, **options: Any) -> int:
        raise ZeroDivisionError("a defect")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"Spawn": ["a-backend", {"image": 5}, None, None]}, "Expected `str`, got `int` - at $.message.Spawn[1].image"),
        ({"Spawn": ["a-backend"]}, "at $.message.Spawn"),
        ({"Spawn": ["../other", {"image": "i"}, None, None]}, "name '../other' has the invalid character"),
        ({"Spawn": ["", {"image": "i"}, None, None]}, "name is empty"),
        ({"Spawn": ["a-backend", {"image": "i"}, None, None]}, "internal error of the executor: ZeroDivisionError"),
        ({"Prepare": None}, "at $.message.Prepare"),
        ({"Terminate": [1, True]}, "at $.message.Terminate"),
        ({"WaitForBackend": "x"}, "at $.message.WaitForBackend"),
        ({"Renew": ["a-backend", "soon"]}, "at $.message.Renew"),
    ],
)
async def test_every_request_has_a_response(message: dict[str, Any], expected: str, tmp_path: Path) -> None:
    (kind,) = message
    async with executor(tmp_path / "socket", Defective):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        writer.write(json.dumps({"id": "one", "message": message}).encode() + b"\n")
        async with asyncio.timeout(LIMIT_S):
            response = json.loads(await reader.readline())
        writer.close()
    error = response["message"][f"{kind}Result"]["Err"]
    assert response["id"] == "one"
    assert expected in (error["Other"] if kind == "WaitForBackend" else error)


@pytest.mark.parametrize("line", [b"[]", b'{"id": "one", "message": {"Nonsense": 1}}', b'{"id": 1, "message": {}}'])
async def test_a_line_that_is_no_request_has_no_response(line: bytes, tmp_path: Path) -> None:
    async with executor(tmp_path / "socket"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        writer.write(line + b"\n" + json.dumps(REQUESTS[0]).encode() + b"\n")
        async with asyncio.timeout(LIMIT_S):
            assert json.loads(await reader.readline())["id"] == REQUESTS[0]["id"]
        writer.close()


class Script:
    """An executor that responds as a test decides, in plain JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[Any] = []
        self.respond: Callable[[dict[str, Any]], Any] = lambda message: None
        self.writer: asyncio.StreamWriter | None = None

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        while line := await reader.readline():
            request = json.loads(line)
            self.requests.append(request)
            message = self.respond(request["message"])
            if message is not None:
                self.send(request["id"], message)
        writer.close()

    def send(self, number: str | None, message: Any) -> None:
        assert self.writer is not None
        self.writer.write(json.dumps({"id": number, "message": message}).encode() + b"\n")


@asynccontextmanager
async def scripted(path: Path) -> AsyncIterator[tuple[Script, RemoteRuntime, list[Any], list[BackendMetrics]]]:
    script = Script(path)
    server = await asyncio.start_unix_server(script.connected, path)
    exits: list[Any] = []
    measured: list[BackendMetrics] = []
    runtime = RemoteRuntime(path)
    await runtime.start(RuntimeListener(lambda *exited: exits.append(exited), measured.append))
    running = asyncio.create_task(runtime.run())
    try:
        yield script, runtime, exits, measured
    finally:
        await runtime.close(leave_running=True)
        await end_tasks([running])
        server.close()
        if script.writer is not None:
            script.writer.close()
        await asyncio.sleep(0.01)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_drone_sends_requests_as_recorded(tmp_path: Path) -> None:
    prepare, spawn, wait, terminate = REQUESTS[0], REQUESTS[1], REQUESTS[2], REQUESTS[5]
    responses = {
        "Prepare": {"PrepareResult": {"Ok": None}},
        "Spawn": {"SpawnResult": {"Ok": {"container_id": "plane-k6xqveyu5dhqvw", "port": 22065}}},
        "WaitForBackend": {"WaitForBackendResult": {"Ok": None}},
        "Terminate": {"TerminateResult": {"Ok": True}},
    }
    async with scripted(tmp_path / "socket") as (script, runtime, exits, measured):
        script.respond = lambda message: responses[next(iter(message))]
        image = {"image": "example/image"}
        key = codec.convert(spawn["message"]["Spawn"][2], AcquiredKey)
        await runtime.prepare(image)
        assert await runtime.spawn(SpawnRequest("k6xqveyu5dhqvw", image, key)) == 22065
        await runtime.wait_for_backend("k6xqveyu5dhqvw", "127.0.0.1", 22065)
        assert await runtime.terminate("chsw071ascdejy", hard=False) is True
        expected = [each["message"] for each in (prepare, spawn, wait, terminate)]
        assert [each["message"] for each in script.requests] == expected
        assert all(len(each["id"]) == 43 for each in script.requests)
        for line in RESPONSES:
            if line["id"] is None:
                script.send(None, line["message"])
        script.send(None, {"TerminateEvent": {"backend_id": "k6xqveyu5dhqvw", "exit_code": 3}})
        await until(lambda: exits)
        assert exits == [("k6xqveyu5dhqvw", 3, "exited with code 3")]
        assert codec.to_builtins(measured[0])["mem_limit"] == 6


async def test_recorded_failures_raise_their_message(tmp_path: Path) -> None:
    errors = {name: line["message"] for line in RESPONSES for name in line["message"] if "Err" in str(line["message"])}
    async with scripted(tmp_path / "socket") as (script, runtime, _, _):
        script.respond = lambda message: errors.get(f"{next(iter(message))}Result", {"TerminateResult": {"Ok": False}})
        with pytest.raises(BackendFailed, match="no such image"):
            await runtime.prepare({"image": "i"})
        with pytest.raises(BackendFailed, match="cannot start"):
            await runtime.spawn(SpawnRequest("b", {"image": "i"}))
        with pytest.raises(BackendFailed, match="broken"):
            await runtime.wait_for_backend("b", "127.0.0.1", 1)
        script.respond = lambda message: {"WaitForBackendResult": {"Err": "StartupTimeout"}}
        with pytest.raises(StartupTimedOut):
            await runtime.wait_for_backend("b", "127.0.0.1", 1)
        script.respond = lambda message: {"PrepareResult": {"Ok": None}}
        with pytest.raises(BackendFailed, match="UnitOutcome instead of TerminateOutcome"):
            await runtime.terminate("b", hard=True)


async def test_a_broken_connection_is_handled_in_each_request(tmp_path: Path) -> None:
    async with scripted(tmp_path / "socket") as (script, runtime, _, _):
        broken: list[str] = []

        def break_once(message: dict[str, Any]) -> Any:
            kind = next(iter(message))
            if kind not in broken:
                broken.append(kind)
                assert script.writer is not None
                script.writer.transport.abort()
                return None
            results: dict[str, Any] = {
                "Prepare": {"PrepareResult": {"Ok": None}},
                "Spawn": {"SpawnResult": {"Ok": {"container_id": "c", "port": 1}}},
                "Terminate": {"TerminateResult": {"Ok": False}},
            }
            return results[kind]

        script.respond = break_once
        await runtime.prepare({"image": "i"})
        with pytest.raises(BackendFailed, match="not known whether it was started"):
            await runtime.spawn(SpawnRequest("b", {"image": "i"}))
        # It may run all the same, so it is ended, again after a break.
        await until(lambda: [each["message"] for each in script.requests].count({"Terminate": ["b", True]}) == 2)
        assert broken == ["Prepare", "Spawn", "Terminate"]
        assert await runtime.terminate("b", hard=True) is False


class Lingering(MemoryRuntime):
    """Its backends take their time to die."""

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        runs = backend_id in self._running
        if runs:
            asyncio.get_running_loop().call_later(0.2, self.exit, backend_id, 137)
        return runs


async def test_an_orphan_is_gone_before_its_backend_is_started_again(tmp_path: Path) -> None:
    """A drone that was killed while a backend began: its next process ends that, and begins it again."""
    path = tmp_path / "socket"
    exits: list[Any] = []
    async with executor(path, Lingering) as (_, backends):
        for _ in range(2):
            runtime = RemoteRuntime(path)
            await runtime.start(RuntimeListener(lambda *exited: exits.append(exited)))
            await runtime.remove_orphan("b")
            assert not backends._running
            await runtime.spawn(SpawnRequest("b", {"image": "i"}))
            await runtime.close(leave_running=True)
            assert list(backends._running) == ["b"]
    assert backends.spawned == ["b", "b"]
    assert exits == []
