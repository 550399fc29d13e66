"""Malformed and hostile requests get 4xx with an ApiError, log no error, and do not affect later requests."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, fake_drone
from plane.controller.app import all_endpoints
from plane.settings import ControllerLimits

DEEP = 100_000


def connect_with(field: str, value: str) -> bytes:
    """A connect request that is good but for one member, given as JSON text."""
    members = {
        "name": '"k"',
        "namespace": '"n"',
        "tag": '"t"',
        "user": '"u"',
        "auth": "{}",
        "executable": '{"image": "i"}',
        "id": "null",
        "cluster": f'"{CLUSTER}"',
        "pool": '""',
        "subdomain": '"sub"',
        "lifetime_limit_seconds": "60",
        "max_idle_seconds": "60",
        "use_static_token": "false",
        field: value,
    }
    key = ", ".join(f'"{name}": {members[name]}' for name in ("name", "namespace", "tag"))
    rest = list(members)[5:13]
    config = ", ".join(f'"{name}": {members[name]}' for name in rest)
    return (
        f'{{"key": {{{key}}}, "user": {members["user"]}, "auth": {members["auth"]}, "spawn_config": {{{config}}}}}'
    ).encode()


BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, ""),
    "not JSON": (b"{nope", 400, ""),
    "two documents": (b"{} {}", 400, ""),
    "not UTF-8": (b'{"user": "\xff\xfe"}', 400, ""),
    "deep arrays": (b"[" * DEEP + b"]" * DEEP, 422, ""),
    "deep objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, 400, ""),
    "deep in auth": (connect_with("auth", '{"a":' * 5_000 + "1" + "}" * 5_000), 400, ""),
    "deep in executable": (connect_with("executable", '{"a":' * 5_000 + "1" + "}" * 5_000), 400, ""),
    "an array": (b"[]", 422, "$"),
    "null": (b"null", 422, "$"),
    "a number": (b"1" * 1000, 422, "$"),
    "lone surrogate": (connect_with("name", '"\\ud800"'), 400, ""),
    "NUL in key": (connect_with("name", '"a\\u0000b"'), 400, "key.name"),
    "NUL in tag": (connect_with("tag", '"a\\u0000b"'), 400, "key.tag"),
    "NUL in auth": (connect_with("auth", '{"a": ["\\u0000"]}'), 400, "auth.a[0]"),
    "NUL in executable": (connect_with("executable", '{"image": "\\u0000"}'), 400, "spawn_config.executable.image"),
    "NUL in pool": (connect_with("pool", '"\\u0000"'), 400, "spawn_config.pool"),
    "NUL in cluster": (connect_with("cluster", '"\\u0000"'), 400, "spawn_config.cluster"),
    "a number beyond 64 bits": (connect_with("max_idle_seconds", "9" * 30), 422, "$.spawn_config.max_idle_seconds"),
    "a number beyond 32 bits": (connect_with("max_idle_seconds", str(2**31)), 422, "$.spawn_config.max_idle_seconds"),
    "a number beyond 64 bits in auth": (connect_with("auth", f'{{"n": {"9" * 400}}}'), 0, ""),
    "an infinite number in auth": (connect_with("auth", '{"n": 1e999}'), 0, ""),
    "an infinite number in executable": (connect_with("executable", '{"image": "i", "n": 1e999}'), 0, ""),
    "a fraction": (connect_with("max_idle_seconds", "1.5"), 422, "$.spawn_config.max_idle_seconds"),
    "negative": (connect_with("max_idle_seconds", "-1"), 400, "spawn_config.max_idle_seconds"),
    "no time to live": (connect_with("lifetime_limit_seconds", "0"), 400, "spawn_config.lifetime_limit_seconds"),
    "a long name": (connect_with("name", json.dumps("x" * 256)), 400, "key.name"),
    "a long user": (connect_with("user", json.dumps("x" * 256)), 400, "user"),
    "a user that no header carries": (connect_with("user", '"a\\nb"'), 400, "user"),
    "large auth": (connect_with("auth", json.dumps({"a": "x" * 9000})), 400, "auth"),
    "executable that is none": (connect_with("executable", "[1]"), 400, "spawn_config.executable"),
    "a bad id": (connect_with("id", '"Über"'), 400, "spawn_config.id"),
    "a long id": (connect_with("id", json.dumps("x" * 46)), 400, "spawn_config.id"),
    "a bad subdomain": (connect_with("subdomain", '"-x"'), 400, "spawn_config.subdomain"),
    "missing name": (b'{"key": {}}', 422, "$.key"),
    "SQL": (connect_with("name", '"\'; DROP TABLE backend; --"'), 200, ""),
    "duplicate keys": (b'{"user": 1, "user": "u", "key": {"name": "dup"}}', 0, ""),
    "unknown members": (b'{"key": {"name": "u", "x": 1}, "y": 2}', 409, ""),
    "over the limit": (b'{"user": "' + b"x" * 2_000_000 + b'"}', 413, ""),
}


@contextmanager
def no_errors_logged() -> Iterator[None]:
    with capture_logs() as logs:
        yield
    assert [entry for entry in logs if entry["log_level"] in ("error", "critical")] == []


@asynccontextmanager
async def world(url: str, **settings: Any) -> AsyncIterator[Api]:
    with no_errors_logged():
        async with controller_api(url, **settings) as api, fake_drone(api.base):
            yield api
            # Whatever came before, the next request is served as usual.
            await api.connect(key={"name": "after"}, spawn_config={"executable": {"image": "i"}})


def is_api_error(body: Any) -> bool:
    return isinstance(body, dict) and set(body) == {"id", "kind", "message"} and len(body["id"]) == 14


async def test_hostile_bodies_are_refused(postgres_url: str) -> None:
    async with world(postgres_url) as api:
        wrong = []
        for name, (body, wanted, path) in BODIES.items():
            headers = {"Content-Type": "application/json"}
            async with api.http.post(f"{api.base}/ctrl/connect", data=io.BytesIO(body), headers=headers) as answer:
                found = await answer.json()
                as_wanted = answer.status == wanted or (wanted == 0 and answer.status < 500)
                told = answer.status < 400 or (is_api_error(found) and path in found["message"])
                if not (as_wanted and told):
                    wrong.append((name, answer.status, found))
        assert wrong == []


async def test_endpoints_refuse_wrong_methods_types_and_paths(postgres_url: str) -> None:
    names = ("%00", "%ED%A0%80", "%FF", "a%2Fb", "..%2f..", "x" * 3000, "'%20OR%201=1", "%F0%9F%92%A9", "%")
    async with world(postgres_url) as api:
        for endpoint in all_endpoints():
            for path in endpoint.paths:
                if "{" not in path and endpoint.body is None:
                    continue
                for name in names:
                    url = name.join(re.split(r"{\w+}", path))
                    status, body = await _head_of_answer(api, endpoint.method, url)
                    assert status < 500, (endpoint.method, url)
                    assert status < 400 or status == 404 or is_api_error(json.loads(body)) or endpoint.is_socket, url
                plain = path.replace("{", "").replace("}", "")
                status, _ = await _head_of_answer(api, "PATCH", plain)
                assert status == 405
                if endpoint.body is not None:
                    xml = {"Content-Type": "text/xml"}
                    async with api.http.request(endpoint.method, api.base + plain, data=b"{}", headers=xml) as got:
                        assert got.status == 415
                        assert is_api_error(await got.json())


async def _head_of_answer(api: Api, method: str, path: str) -> tuple[int, bytes]:
    """Status and, if it is not endless, body: sent as it is, since a client would mend the path."""
    parts = urlsplit(api.base)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: [::]\r\nContent-Length: 0\r\n\r\n".encode())
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = head.partition("content-length: ")[2].partition("\r\n")[0]
            return int(head.split()[1]), await reader.readexactly(int(length)) if length else b""
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /ctrl/connect HTTP/1.1\r\nHost: [::]\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /ctrl/connect HTTP/1.1\r\nHost: [::]\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: [::]\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: [::]\r\n\r\n",
    ],
)
async def test_malformed_http_gets_an_api_error(postgres_url: str, sent: bytes) -> None:
    async with world(postgres_url) as api:
        with capture_logs() as logs:
            parts = urlsplit(api.base)
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(sent)
            async with asyncio.timeout(10):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                # The connection ends: where the next request would begin is not known.
                body = json.loads(await reader.read())
            writer.close()
        assert head.split()[1] == "400"
        assert "\r\nContent-Type: application/json" in head
        assert is_api_error(body)
        assert body["kind"] == "Other"
        assert "\n" not in body["message"]
        [told] = [entry for entry in logs if entry.get("error_id") == body["id"]]
        assert (told["event"], told["log_level"], told["message"]) == ("request refused", "info", body["message"])
        assert [entry for entry in logs if entry["log_level"] not in ("info", "debug")] == []


async def test_slow_clients_do_not_delay_others(postgres_url: str) -> None:
    async with world(postgres_url) as api:
        parts = urlsplit(api.base)
        slow = []
        try:
            for _ in range(1500):
                _, writer = await asyncio.open_connection(parts.hostname, parts.port)
                slow.append(writer)
                writer.write(
                    b"POST /ctrl/connect HTTP/1.1\r\nHost: [::]\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 1000\r\n\r\n{"
                )
            async with asyncio.timeout(10):
                answer = await api.connect(key={"name": "quick"}, spawn_config={"executable": {"image": "i"}})
            assert answer["spawned"] is True
        finally:
            for writer in slow:
                writer.transport.abort()


async def test_body_that_does_not_arrive_times_out(postgres_url: str) -> None:
    async with world(postgres_url, limits=ControllerLimits(body_s=0.2)) as api:
        parts = urlsplit(api.base)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(
            b"POST /ctrl/connect HTTP/1.1\r\nHost: [::]\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_incomplete_bodies_share_a_memory_limit(
    postgres_url: str,
) -> None:
    head = b"POST /ctrl/connect HTTP/1.1\r\nHost: [::]\r\nContent-Type: application/json\r\n"
    begun = head + b'Content-Length: 500000\r\n\r\n"'
    async with world(postgres_url, limits=ControllerLimits(incomplete_body_bytes=1_000_000)) as api:
        parts = urlsplit(api.base)
        slow = []
        try:
            statuses = []
            for _ in range(4):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                slow.append(writer)
                writer.write(begun + b"x" * 400_000)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        statuses.append((await reader.readline()).split()[1])
            assert statuses == [b"503", b"503"]
            # What arrives at once has room all the same.
            assert (await api.connect(key={"name": "small"}, spawn_config={"executable": {"image": "i"}}))["spawned"]
        finally:
            for writer in slow:
                writer.transport.abort()
        # And when they have gone, so has what they held.
        async with asyncio.timeout(10):
            status = b"503"
            while status == b"503":
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                writer.write(begun + b"x" * 400_000)
                await asyncio.sleep(0.1)
                writer.write(b"x" * 99_998 + b'"')
                status = (await reader.readline()).split()[1]
                writer.close()
            assert status == b"422"
