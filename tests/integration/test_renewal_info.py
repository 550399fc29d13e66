"""What a CA suggests about renewal (RFC 9773), from a server on loopback: Debian's Pebble does not offer it yet."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp import web
from cryptography import x509

from harness.clusters import free_port
from plane.proxy.certificates.renewal_info import certificate_id, fetch_renewal_info
from plane.timing import RENEWAL_INFO_INTERVAL_S, RENEWAL_INFO_MIN_INTERVAL_S

AUTHORITY = trustme.CA()
CHAIN = AUTHORITY.issue_cert("plane.test").cert_chain_pems[0].bytes()
WINDOW = {"start": "2026-12-01T00:00:00Z", "end": "2026-12-03T12:00:00.5+00:00"}

# The directory's URL, what to trust, and the names that were asked about.
Ca = tuple[str, ssl.SSLContext, list[str]]


@asynccontextmanager
async def ca(
    answer: web.Response | None, *, offers: bool = True
) -> AsyncIterator[tuple[str, ssl.SSLContext, list[str]]]:
    asked: list[str] = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    port = free_port()

    async def directory(_: web.Request) -> web.Response:
        return web.json_response({"renewalInfo": f"https://localhost:{port}/info/"} if offers else {})

    async def info(request: web.Request) -> web.Response:
        asked.append(request.match_info["name"])
        assert answer is not None
        return answer

    app = web.Application()
    app.add_routes([web.get("/dir", directory), web.get("/info/{name}", info)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    trusting = ssl.create_default_context()
    AUTHORITY.configure_trust(trusting)
    try:
        await web.TCPSite(runner, "localhost", port, ssl_context=context).start()
        yield f"https://localhost:{port}/dir", trusting, asked
    finally:
        await runner.cleanup()


async def test_the_window_and_when_to_ask_again() -> None:
    answer = web.json_response({"suggestedWindow": WINDOW}, headers={"Retry-After": "21600"})
    async with ca(answer) as (endpoint, trusting, asked):
        found = await fetch_renewal_info(endpoint, CHAIN, trusting)
    assert asked == [certificate_id(CHAIN)]
    assert found.window is not None
    assert found.window[0] == datetime.datetime(2026, 12, 1, tzinfo=datetime.UTC)
    assert found.window[1] - found.window[0] == datetime.timedelta(days=2, hours=12, seconds=0.5)
    assert found.valid_s == 21600


@pytest.mark.parametrize(
    ("wish", "kept"), [("0", RENEWAL_INFO_MIN_INTERVAL_S), ("99999999", RENEWAL_INFO_INTERVAL_S * 4)]
)
async def test_a_wish_beyond_reason_is_not_granted(wish: str, kept: float) -> None:
    async with ca(web.json_response({"suggestedWindow": WINDOW}, headers={"Retry-After": wish})) as (url, trusting, _):
        assert (await fetch_renewal_info(url, CHAIN, trusting)).valid_s == kept


@pytest.mark.parametrize("answer", [web.Response(status=500), web.Response(text="junk"), web.json_response({})])
async def test_what_is_no_answer_is_no_window(answer: web.Response) -> None:
    async with ca(answer) as (endpoint, trusting, _):
        assert (await fetch_renewal_info(endpoint, CHAIN, trusting)).window is None


async def test_a_ca_without_it_or_that_is_away_or_not_trusted_says_nothing() -> None:
    async with ca(None, offers=False) as (endpoint, trusting, asked):
        assert (await fetch_renewal_info(endpoint, CHAIN, trusting)).window is None
        assert (await fetch_renewal_info(endpoint, CHAIN, ssl.create_default_context())).window is None
    assert asked == []
    assert (await fetch_renewal_info(endpoint, CHAIN, trusting)).window is None


def test_the_certificate_s_name_is_that_of_the_rfc() -> None:
    name = certificate_id(CHAIN)
    assert name is not None
    issuer, _, serial = name.partition(".")
    assert "=" not in name
    leaf = x509.load_pem_x509_certificates(CHAIN)[0]
    key_identifier = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert key_identifier is not None
    assert len(issuer) == (len(key_identifier) * 4 + 2) // 3
    assert serial
