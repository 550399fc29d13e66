"""TLS: both forms of a certificate, the swap of one, what is refused, the redirect, and what testssl.sh finds."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from harness import real_parts
from harness.certificates import Authority
from harness.proxy_world import LIMIT_S, World, get, status, world
from plane.protocol.errors import ConfigurationError
from plane.proxy.certificates import files
from plane.proxy.data_plane import limits


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def connect(it: World, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", it.https_port, ssl=context, server_hostname="localhost")


def serial(writer: asyncio.StreamWriter) -> str:
    return str(writer.get_extra_info("peercert")["serialNumber"])


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(get())
    async with asyncio.timeout(LIMIT_S):
        return await reader.readuntil(b"\r\n\r\nok")


@pytest.mark.parametrize("form", ["json", "pair"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_forms_of_a_certificate_and_both_versions(
    authority: Authority, form: str, version: ssl.TLSVersion
) -> None:
    leaf = authority.issue()
    given = {"cert_path": authority.json(leaf)} if form == "json" else {"tls_pair": authority.pair(leaf)}
    async with world(https_port=0, **given) as it:
        context = authority.client()
        context.minimum_version = context.maximum_version = version
        reader, writer = await connect(it, context)
        assert status(await ask(reader, writer)) == 200
        assert b"\r\nx-forwarded-proto: https\r\n" in it.heard[0]
        assert writer.get_extra_info("ssl_object").version() == version.name.replace("v1_", "v1.")
        writer.close()


async def test_a_changed_file_is_shown_to_new_connections_and_harms_no_open_one(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "POLL_INTERVAL_S", 0.05)
    path = authority.json(authority.issue())
    async with world(https_port=0, cert_path=path) as it:
        reader, writer = await connect(it, authority.client())
        first = serial(writer)
        path.write_text("half written")
        await asyncio.sleep(0.3)
        _, same = await connect(it, authority.client())
        assert serial(same) == first
        same.close()
        authority.json(authority.issue())
        async with asyncio.timeout(LIMIT_S):
            while True:
                _, other = await connect(it, authority.client())
                shown = serial(other)
                other.close()
                if shown != first:
                    break
                await asyncio.sleep(0.05)
        assert status(await ask(reader, writer)) == 200
        writer.close()


async def test_tunnels_and_large_bodies_pass_tls(authority: Authority) -> None:
    size = 3_000_000
    async with world(https_port=0, tls_pair=authority.pair(authority.issue())) as it:

        async def upgrade_or_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"Upgrade: raw" in head:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
                while data := await reader.read(65536):
                    writer.write(data)
                return
            body = await reader.readexactly(size)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body)
            await writer.drain()

        it.exchange = upgrade_or_echo
        async with asyncio.timeout(30):
            reader, writer = await connect(it, authority.client())
            writer.write(get("/t/", "Connection: Upgrade", "Upgrade: raw"))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"x" * 100_000)
            assert await reader.readexactly(100_000) == b"x" * 100_000
            writer.close()
            reader, writer = await connect(it, authority.client())
            body = bytes(range(250)) * (size // 250)
            writer.write(get("/t/", f"Content-Length: {size}", method="POST") + body)
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(size) == body
            writer.close()


async def test_the_plain_port_only_redirects_to_tls(authority: Authority) -> None:
    async with world(https_port=0, tls_pair=authority.pair(authority.issue())) as it:
        response = await it.send(get("/t/a?b=c", host="localhost:80"))
        assert status(response) == 301
        assert b"\r\nLocation: https://localhost/t/a?b=c\r\n" in response
        assert b"\r\nLocation: https://[::1]/\r\n" in await it.send(get("/", host="[::1]:80"))
        assert it.heard == []


async def test_plain_http_on_the_tls_port_and_old_versions_are_refused(authority: Authority) -> None:
    async with world(https_port=0, tls_pair=authority.pair(authority.issue())) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.https_port)
        writer.write(get())
        async with asyncio.timeout(LIMIT_S):
            assert not (await reader.read(-1)).startswith(b"HTTP")
        writer.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.02)


async def silent(it: World) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that connects, and says nothing."""
    return await asyncio.open_connection("127.0.0.1", it.https_port)


async def test_a_handshake_counts_as_an_open_connection_and_times_out(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_LIMIT_S", 2.0)
    async with world(https_port=0, tls_pair=authority.pair(authority.issue())) as it:
        kept = await connect(it, authority.client())
        assert status(await ask(*kept)) == 200
        await until(lambda: len(it.service.connections) == 1)
        it.service.fd_budget.limit = 1 + it.service.pool.open + 4
        held = [await silent(it) for _ in range(3)]
        await until(lambda: len(it.service.handshakes) == 3)
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await connect(it, authority.client())
        # Whoever was there before is served all the same.
        assert status(await ask(*kept)) == 200
        # The silent ones are ended, and there is room again.
        async with asyncio.timeout(LIMIT_S):
            for reader, writer in held:
                with suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
        await until(lambda: not it.service.handshakes)
        later = await connect(it, authority.client())
        assert status(await ask(*later)) == 200
        for _, writer in (kept, later):
            writer.close()
    assert "at the limit of open files" in "".join(capfd.readouterr())


async def test_handshakes_beyond_the_limit_wait(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKES_LIMIT", 3)
    async with world(https_port=0, tls_pair=authority.pair(authority.issue())) as it:
        held = [await silent(it) for _ in range(3)]
        await until(lambda: len(it.service.handshakes) == 3)
        waiting = asyncio.create_task(connect(it, authority.client()))
        await until(lambda: "at the limit of TLS handshakes" in "".join(capfd.readouterr()))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        assert len(it.service.handshakes) == 3
        held.pop()[1].close()
        async with asyncio.timeout(LIMIT_S):
            reader, writer = await waiting
        assert status(await ask(reader, writer)) == 200
        for _, one in [*held, (reader, writer)]:
            one.close()


async def test_a_stop_does_not_wait_for_a_silent_client(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plane.timing.PROXY_SHUTDOWN_GRACE_S", 0.2)
    monkeypatch.setattr(limits, "HANDSHAKE_LIMIT_S", 60.0)
    async with world(https_port=0, tls_pair=authority.pair(authority.issue())) as it:
        reader, writer = await silent(it)
        await until(lambda: len(it.service.handshakes) == 1)
    assert not it.service.handshakes
    async with asyncio.timeout(LIMIT_S):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda chain, key: key.chmod(0o644), "chmod 600"),
        (lambda chain, key: chain.unlink(), "does not exist"),
        # As is one in a folder that this user may not enter; root may enter all.
        (lambda chain, key: (key.rename(f"{key}.real"), key.symlink_to(key)), "cannot be read: Too many levels"),
        (lambda chain, key: chain.write_bytes(b"nonsense"), "not PEM"),
        (lambda chain, key: key.write_bytes(b"nonsense"), "not PEM"),
        (lambda chain, key: key.write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes()), "does not belong"),
    ],
)
async def test_an_unusable_certificate_is_reported_at_the_start(
    authority: Authority, spoil: object, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    chain, key = authority.pair(authority.issue())
    secret = key.read_text().splitlines()[1]
    assert callable(spoil)
    spoil(chain, key)
    with pytest.raises(ConfigurationError, match=said) as raised:
        async with world(https_port=0, tls_pair=(chain, key)):
            pass
    assert secret not in str(raised.value) + "".join(capfd.readouterr())


async def test_the_json_file_is_for_its_owner_alone(authority: Authority) -> None:
    path = authority.json(authority.issue())
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        async with world(https_port=0, cert_path=path):
            pass


async def test_testssl_finds_no_problem(authority: Authority, tmp_path: Path) -> None:
    program = shutil.which("testssl")
    if program is None:
        real_parts.missing("testssl.sh")
    assert program is not None
    async with world(https_port=0, tls_pair=authority.pair(authority.issue())) as it:
        found = tmp_path / "found.json"
        # Protocols, server defaults, ciphers, vulnerabilities: what the proxy chooses. Not the test's certificate.
        options = ["--quiet", "--warnings", "off", "--color", "0", "--jsonfile", str(found)]
        options += ["--add-ca", str(authority.file), "-p", "-s", "-f", "-P", "-U"]
        process = await asyncio.create_subprocess_exec(
            program, *options, f"localhost:{it.https_port}", stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(100):
            await process.wait()
        findings = json.loads(found.read_text())
    assert len(findings) > 30
    # "engine_problem" is about the OpenSSL that it tests with.
    bad = [f for f in findings if f["severity"] not in ("OK", "INFO", "DEBUG") and f["id"] != "engine_problem"]
    assert bad == []
