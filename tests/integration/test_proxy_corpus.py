"""The corpus: requests as data, with what must happen; and the same through `h11` and nginx, which must agree."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import h11

from harness.nginx import nginx
from harness.proxy_world import CLUSTER, LIMIT_S, OK, World, get, status, world

CORPUS = Path(__file__).parent / "corpus"


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((CORPUS / f"{name}.toml").read_text())["case"]
    return found


async def exchange(port: int, data: bytes, *, half_close: bool = True) -> bytes:
    """Return all that comes until the connection closes. The client half-closes when it has sent everything."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            return await reader.read(-1)
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


async def test_a_refused_request_never_reaches_a_backend() -> None:
    found = cases("refused")
    async with world() as it:
        responses = await asyncio.gather(
            *(exchange(it.port, case["request"].encode("latin-1") + get("/t/smuggled")) for case in found)
        )
        assert it.heard == []
    for case, response in zip(found, responses, strict=True):
        assert (case["name"], status(response)) == (case["name"], case["status"])
        assert response.count(b"HTTP/1.1 ") == 1, case["name"]
        assert b"\r\nConnection: close\r\n" in response, case["name"]


async def test_large_parts_are_refused() -> None:
    too_large = [
        (get("/t/" + "a" * 20_000), 414),
        (get("/t/", "A: " + "b" * 70_000), 431),
        (get("/t/", *["A: b"] * 300), 431),
    ]
    async with world() as it:
        for request, expected in too_large:
            response = await exchange(it.port, request)
            assert (status(response), response.count(b"HTTP/1.1 ")) == (expected, 1)
        assert it.heard == []


async def test_malformed_chunks_end_both_connections() -> None:
    head = get("/t/", "Transfer-Encoding: chunked", method="POST")
    async with world() as it:

        async def until_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            it.heard.append(await reader.read(-1))

        it.exchange = until_the_end
        for case in cases("bad_chunks"):
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            writer.write(head + case["body"].encode("latin-1"))
            async with asyncio.timeout(LIMIT_S):
                assert (case["name"], status(await reader.read(-1))) == (case["name"], 400)
            writer.close()
        heard = b"".join(it.heard)
        assert b"eve" not in heard
        assert b"6.6.6.6" not in heard
        assert not heard.endswith(b"0\r\n\r\n")


class Backend:
    """Reads requests with `h11`, and records them."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            read = await read_request(reader)
            if read is None:
                return
            self.asked.append(read)
            writer.write(OK)


async def read_request(
    reader: asyncio.StreamReader,
) -> tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]] | None:
    """Method, target, body and fields of one request, as `h11` reads them; None at the end."""
    parser = h11.Connection(h11.SERVER)
    request, body = None, b""
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(65536)
            if not data and request is None:
                return None
            parser.receive_data(data)
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            return request.method, request.target, body, list(request.headers)
        else:
            return None


async def through(it: World, backend: Backend, port: int, request: bytes) -> tuple[int, Any]:
    """Return the status, and the requests of the backend. nginx treats a half-close as an end."""
    backend.asked.clear()
    response = await exchange(port, request, half_close=port == it.port)
    return status(response) if response.startswith(b"HTTP/") else 0, list(backend.asked)


async def test_h11_and_nginx_agree_on_what_is_valid(tmp_path: Path) -> None:
    backend = Backend()
    async with world() as it:
        it.exchange = backend
        with nginx(tmp_path, it.backend_port) as nginx_port:
            for case in cases("valid"):
                request = case["request"].encode("latin-1")
                ours = await through(it, backend, it.port, request)
                # nginx does not take a token away, and knows no cluster.
                theirs = await through(it, backend, nginx_port, request.replace(b"/t/", b"/", 1))
                method, target, _ = case["line"].encode().split(b" ")
                seen = [asked[:3] for asked in ours[1]]
                assert (case["name"], ours[0], seen) == (
                    case["name"],
                    200,
                    [(method, target, case.get("body", "").encode())],
                )
                assert (case["name"], theirs[0]) == (case["name"], 200)
                assert [asked[0] for asked in theirs[1]] == [method], case["name"]
                assert [asked[2] for asked in theirs[1]] == [case.get("body", "").encode()], case["name"]


async def test_what_nginx_refuses_is_refused_here_too(tmp_path: Path) -> None:
    backend = Backend()
    refused_by_nginx = 0
    async with world() as it:
        it.exchange = backend
        with nginx(tmp_path, it.backend_port) as nginx_port:
            for case in cases("refused") + cases("valid"):
                request = case["request"].encode("latin-1")
                theirs = await through(it, backend, nginx_port, request)
                if theirs[0] in (0, 200, 502):
                    continue
                refused_by_nginx += 1
                ours = await through(it, backend, it.port, request)
                assert (case["name"], ours[0] >= 400, ours[1]) == (case["name"], True, [])
    assert refused_by_nginx > 20


async def test_the_backend_gets_all_fields_of_the_client_except_hop_by_hop_fields() -> None:
    sent = [("Accept", "*/*"), ("Cookie", "a=b; c=d"), ("X-A", "1"), ("x-a", "2"), ("X_B", "\xe9"), ("Empty", "")]
    backend = Backend()
    async with world() as it:
        it.exchange = backend
        request = get("/t/", *(f"{name}: {value}" for name, value in sent), "Connection: close, X-Hop", "X-Hop: 1")
        assert status(await exchange(it.port, request)) == 200
    ((*_, fields),) = backend.asked
    ours = (b"host", b"x-verified-", b"x-forwarded-")
    seen = [(name, value) for name, value in fields if not name.startswith(ours)]
    assert seen == [(name.lower().encode(), value.encode("latin-1")) for name, value in sent]
    assert [value for name, value in fields if name == b"host"] == [CLUSTER.encode()]
