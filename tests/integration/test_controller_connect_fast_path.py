"""The fast path responds like aiohttp to plain connect requests, and hands over all others."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp.web_protocol import RequestHandler
from structlog.testing import capture_logs

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, fake_drone
from plane.controller.api import connect_fast_path
from plane.database import connect
from plane.decisions.access import Role, key_entry
from plane.decisions.http.fast_path_request import FastPathRequest, read_fast_path_request
from plane.settings import ControllerLimits

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}
LIMIT_S = 20

# Not known to be harmless, and harmless.
ELSEWHERE = b"X-Other: 1\r\n"


def post(
    body: Any, *fields: str, path: str = "/ctrl/connect", length: int | None = None, host: str = "localhost"
) -> bytes:
    """A connect request; ``body`` is sent as it is if it is bytes."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", f"Host: {host}"]
    head.append(f"Content-Length: {len(sent) if length is None else length}")
    if not any(field.lower().startswith("content-type") for field in fields):
        head.append("Content-Type: application/json")
    return "\r\n".join([*head, *fields, "", ""]).encode() + sent


def elsewhere(request: bytes) -> bytes:
    """The same request, for aiohttp."""
    line, _, rest = request.partition(b"\r\n")
    return line + b"\r\n" + ELSEWHERE + rest


class Raw:
    """A connection on which bytes are sent as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> tuple[str, Any]:
        """Head and body of the next answer. What is drawn or told by a clock is replaced."""
        async with asyncio.timeout(LIMIT_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"\r\nContent-Length: (\d+)", head)
            body = await self._reader.readexactly(int(length[1]) if length else 0)
        assert re.search(r"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", head)
        head = re.sub(r"\r\n(Date|Content-Length): [^\r]*", r"\r\n\1: _", head)
        found = json.loads(body) if "application/json" in head else body
        if isinstance(found, dict):
            found |= {name: "_" for name in ("id", "token", "secret_token", "url") if found.get(name)}
        return head, found

    async def ended(self) -> bool:
        """Whether the server closes the connection now."""
        async with asyncio.timeout(LIMIT_S):
            return await self._reader.read(1) == b""


@asynccontextmanager
async def raw(api: Api) -> AsyncIterator[Raw]:
    where = urlsplit(api.base)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each time that bytes were looked at: whether they were a plain request."""
    found: list[bool] = []

    def read(data: bytes) -> FastPathRequest | None:
        request = read_fast_path_request(data)
        found.append(request is not None)
        return request

    monkeypatch.setattr(connect_fast_path, "read_fast_path_request", read)
    return found


PLAIN: dict[str, bytes] = {
    "held key": post({"key": {"name": "k"}}),
    "held key, other tag": post({"key": {"name": "k", "tag": "other"}}),
    "held key, browser": post({"key": {"name": "k"}}, "Accept: */*", "Accept-Encoding: gzip", "User-Agent: x"),
    "held key, foreign host": post({"key": {"name": "k"}}, host="evil.example:8080"),
    "unknown key, no config": post({"key": {"name": "unknown"}}),
    "no drone": post({"key": {"name": "u"}, "spawn_config": {**IMAGE, "pool": "none"}}),
    "bad cluster": post({"spawn_config": {**IMAGE, "cluster": "a b"}}),
    "bad key": post({"key": {"name": "a\0b"}}),
    "not JSON": post(b"{nope"),
    "not UTF-8": post(b'{"user": "\xff"}'),
    "another shape": post([1]),
    "wrong field": post({"key": {"name": 1}}),
    "large": post({"key": {"name": "k"}, "auth": {"a": "x" * 20_000}}),
}
OTHERS: dict[str, bytes] = {
    "foreign origin": post({"key": {"name": "k"}}, "Origin: http://evil.example"),
    "own origin": post({"key": {"name": "k"}}, "Origin: http://localhost", "Sec-Fetch-Site: same-origin"),
    "foreign site": post({"key": {"name": "k"}}, "Sec-Fetch-Site: cross-site"),
    "empty body": post(b""),
    "another type": post({}, "Content-Type: text/plain"),
    "another path": post({}, path="/ctrl/nothing"),
    "another path in it": post({}, path="/ctrl/connect/x"),
    "query": post({"key": {"name": "k"}}, path="/ctrl/connect?a=b"),
    "too large": post({"key": {"name": "k" * 1_100_000}}),
    "closing": post({"key": {"name": "k"}}, "Connection: close"),
    "not HTTP": b"nonsense\r\n\r\n",
    "status": b"GET /pub/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("name", [*PLAIN, *OTHERS])
async def test_responses_equal_those_of_aiohttp(postgres_url: str, verdicts: list[bool], name: str) -> None:
    request = (PLAIN | OTHERS)[name]
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        await api.connect(key={"name": "k", "tag": ""}, spawn_config=IMAGE)
        async with raw(api) as here, raw(api) as there:
            verdicts.clear()
            with capture_logs() as logs_here:
                here.send(request)
                answer = await here.answer()
            # Bytes of another path are plain, and aiohttp's all the same.
            assert verdicts[:1] == [name in PLAIN or name.startswith("another path")]
            with capture_logs() as logs_there:
                there.send(request if request == OTHERS["not HTTP"] else elsewhere(request))
                assert await there.answer() == answer
            assert verdicts[-1] is False
        assert _comparable(logs_here) == _comparable(logs_there)


def _comparable(logs: Any) -> list[dict[str, Any]]:
    kept = [entry for entry in logs if entry["event"] in ("request refused", "request failed")]
    return [{**entry, "error_id": "_"} for entry in kept]


async def test_roles_are_enforced_like_by_aiohttp(postgres_url: str, verdicts: list[bool], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{key_entry(f'the-{role}', role, f'key-of-{role}-0123456789')}\n" for role in Role))
    async with controller_api(postgres_url, api_key_file=keys) as api, raw(api) as here, raw(api) as there:
        statuses = []
        for bearer in ("", *(f"Bearer key-of-{role}-0123456789" for role in Role), "Bearer wrong", "Basic x"):
            request = post(b"{nope", *([f"Authorization: {bearer}"] if bearer else []))
            here.send(request)
            answer = await here.answer()
            statuses.append(int(answer[0].split()[1]))
            there.send(elsewhere(request))
            assert await there.answer() == answer
        assert statuses == [401, 400, 400, 403, 403, 401, 401]
        assert verdicts == [True, False, *[True] * 6]


async def test_split_and_pipelined_requests_get_responses_in_order(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        await api.connect(key={"name": "k"}, spawn_config=IMAGE)
        held, unknown = PLAIN["held key"], PLAIN["unknown key, no config"]
        async with raw(api) as connection:
            connection.send(held)
            wanted = await connection.answer()
        for pieces in (
            [held[:10], held[10:]],
            [held[:-20], held[-20:]],
            [held[:-20], held[-20:-10], held[-10:]],
            [held[:-20], held[-20:] + held],
            [held + held[:30], held[30:], unknown],
        ):
            async with raw(api) as connection:
                for piece in pieces:
                    connection.send(piece)
                    await asyncio.sleep(0.01)
                for _ in range(b"".join(pieces).count(b'{"key": {"name": "k"}}')):
                    assert await connection.answer() == wanted
        async with raw(api) as connection:
            # The second comes while the first is under way, the others when the connection is aiohttp's.
            for request in (held, unknown, held, OTHERS["status"], held):
                connection.send(request)
                await asyncio.sleep(0)
            statuses = [(await connection.answer())[0].split()[1] for _ in range(5)]
            assert statuses == ["200", (await _status_of(api, unknown)), "200", "200", "200"]


async def test_body_may_arrive_shortly_after_its_head(
    postgres_url: str, verdicts: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = ControllerLimits(fast_path_body_s=0.0)
    async with (
        controller_api(postgres_url) as api,
        controller_api(postgres_url, limits=impatient) as other,
        raw(api) as quick,
        raw(other) as slow,
    ):
        request = PLAIN["not JSON"]
        head, body = request[:-5], request[-5:]
        quick.send(head)
        await _until(lambda: verdicts == [True])
        quick.send(body)
        wanted = await quick.answer()
        general = _given_to_aiohttp(monkeypatch)
        slow.send(head)
        await _until(lambda: len(general) == 1)
        slow.send(body)
        assert await slow.answer() == wanted
        assert verdicts == [True] * 3


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.01)


def _given_to_aiohttp(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each connection that aiohttp is given from now on."""
    made: list[None] = []
    connection_made = RequestHandler.connection_made

    def noted(self: RequestHandler, transport: asyncio.BaseTransport) -> None:
        made.append(None)
        connection_made(self, transport)

    monkeypatch.setattr(RequestHandler, "connection_made", noted)
    return made


async def _status_of(api: Api, request: bytes) -> str:
    async with raw(api) as connection:
        connection.send(request)
        return (await connection.answer())[0].split()[1]


async def test_expect_continue_gets_a_continue(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, raw(api) as connection:
        request = post(b"{nope", "Expect: 100-continue")
        connection.send(request[:-5])
        async with asyncio.timeout(LIMIT_S):
            assert await connection._reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(request[-5:])
        assert (await connection.answer())[0].startswith("HTTP/1.1 400 ")


async def test_metrics_count_both_paths_together(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, raw(api) as here, raw(api) as there:
        for _ in range(3):
            here.send(PLAIN["not JSON"])
            await here.answer()
        there.send(elsewhere(PLAIN["not JSON"]))
        await there.answer()
        _, text = await api.call("GET", "/metrics")
    assert 'plane_http_requests_total{endpoint="/ctrl/connect",method="POST",status="400"} 4.0' in text
    assert 'plane_http_request_seconds_count{endpoint="/ctrl/connect"} 4.0' in text


async def test_idle_connection_is_closed_with_the_controller(postgres_url: str) -> None:
    async with AsyncExitStack() as stack:
        async with controller_api(postgres_url) as api:
            silent, idle = [await stack.enter_async_context(raw(api)) for _ in range(2)]
            idle.send(PLAIN["not JSON"])
            await idle.answer()
        assert await silent.ended()
        assert await idle.ended()


async def test_connection_without_requests_is_closed_after_its_keepalive(
    postgres_url: str,
) -> None:
    # Far longer than a slow machine needs between two of the requests.
    limits = ControllerLimits(keep_alive_s=2.0)
    async with controller_api(postgres_url, limits=limits) as api, raw(api) as silent, raw(api) as used:
        closed = asyncio.create_task(silent.ended())
        while not closed.done():
            used.send(PLAIN["not JSON"])
            await used.answer()
            await asyncio.sleep(0.05)
        assert closed.result()
        used.send(PLAIN["not JSON"])
        await used.answer()
        assert await used.ended()


async def test_client_that_does_not_read_is_handed_over_and_loses_no_response(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes: list[connect_fast_path.ConnectFastPath] = []
    connection_made = connect_fast_path._Connection.connection_made

    def with_small_buffers(self: connect_fast_path._Connection, transport: asyncio.BaseTransport) -> None:
        connection_made(self, transport)
        lanes.append(self._path)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self._transport.set_write_buffer_limits(high=0)

    async with controller_api(postgres_url) as api:
        monkeypatch.setattr(connect_fast_path._Connection, "connection_made", with_small_buffers)
        general = _given_to_aiohttp(monkeypatch)
        where = urlsplit(api.base)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.connect((where.hostname, where.port))
        reader, writer = await asyncio.open_connection(sock=client, limit=1024)
        connection = Raw(reader, writer)
        try:
            sent = 0
            while not general:
                connection.send(PLAIN["not JSON"])
                sent += 1
                # Each is answered, or has made the connection aiohttp's, before the next is sent.
                counted = partial(_counted, lanes, sent)
                await _until(lambda counted=counted: bool(general) or counted())  # type: ignore[misc]
            for _ in range(sent):
                assert (await connection.answer())[0].startswith("HTTP/1.1 400 ")
        finally:
            writer.close()


def _counted(lanes: list[connect_fast_path.ConnectFastPath], requests: int) -> bool:
    return bool(lanes) and lanes[0].instruments.requests["POST", "/ctrl/connect", 400] == requests


@pytest.mark.parametrize("trip", ["look_up_keys", "spawn_backends"])
@pytest.mark.parametrize("answers", [True, False])
async def test_requests_in_flight_may_finish_while_the_controller_stops(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, trip: str, answers: bool
) -> None:
    database = _Slow(monkeypatch, trip)
    async with AsyncExitStack() as stack:
        async with controller_api(postgres_url) as api, fake_drone(api.base):
            connection = await stack.enter_async_context(raw(api))
            connection.send(post({"spawn_config": {**IMAGE, "cluster": CLUSTER}}))
            await database.asked()
            if answers:
                # Later than the controller begins to stop, well before its patience is over.
                asyncio.get_running_loop().call_later(0.3, database.go_on.set)
        if answers:
            # The drone has left before the controller stopped.
            status = 200 if trip == "spawn_backends" else 500
            assert (await connection.answer())[0].startswith(f"HTTP/1.1 {status} ")
            assert await connection.ended()
        else:
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await connection.answer()


@pytest.mark.parametrize("trip", ["look_up_keys", "spawn_backends"])
async def test_request_takes_effect_after_its_client_disconnects(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, trip: str
) -> None:
    database = _Slow(monkeypatch, trip)
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        async with raw(api) as connection:
            connection.send(post({"spawn_config": {**IMAGE, "cluster": CLUSTER}}))
            await database.asked()
        database.go_on.set()
        assert "Spawn" in (await drone.receive("Action"))["action"]


class _Slow:
    """Has one of the two trips to the database wait until ``go_on`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, trip: str) -> None:
        self.go_on = asyncio.Event()
        self._asked = asyncio.Event()
        self._go = getattr(connect, trip)
        monkeypatch.setattr(connect, trip, self._wait_and_go)

    async def _wait_and_go(self, *args: Any) -> Any:
        self._asked.set()
        await self.go_on.wait()
        return await self._go(*args)

    async def asked(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            await self._asked.wait()
