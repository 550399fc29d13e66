"""Endpoints outside of the public API refuse requests of foreign web pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, fake_drone
from plane.controller.app import all_endpoints
from plane.decisions.access import Role, key_entry

KEY = "key-of-an-admin-0123456789"

FOREIGN: dict[str, dict[str, str]] = {
    "rebinding": {"Host": "evil.example:8080", "Origin": "http://evil.example:8080", "Sec-Fetch-Site": "same-origin"},
    "origin": {"Origin": "http://evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "sandbox": {"Origin": "null"},
    "image": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "neighbour": {"Sec-Fetch-Site": "same-site"},
}


async def refused(api: Api, method: str, path: str, headers: dict[str, str], **more: Any) -> bool:
    """Whether a request is refused as that of a foreign page."""
    async with api.http.request(method, api.base + path, headers=headers, **more) as answer:
        if answer.status != 403:
            return False
        assert "Access-Control-Allow-Origin" not in answer.headers
        return re.search("another origin|--allowed-host", (await answer.json())["message"]) is not None


@pytest.mark.parametrize("name", FOREIGN)
async def test_only_public_endpoints_serve_foreign_pages(postgres_url: str, name: str) -> None:
    async with controller_api(postgres_url) as api:
        for endpoint in all_endpoints():
            for pattern in endpoint.paths:
                path = re.sub(r"{\w+}", "x", pattern)
                if not path.endswith("stream"):
                    is_public = path.startswith(("/pub/", "/livez", "/readyz"))
                    assert await refused(api, endpoint.method, path, FOREIGN[name]) is not is_public, path
        assert await refused(api, "GET", "/ctrl/nothing", FOREIGN[name])
        assert await refused(api, "POST", "/%63trl/connect", FOREIGN[name])
        assert await refused(api, "OPTIONS", "/ctrl/connect", FOREIGN[name])


async def test_controller_with_keys_checks_the_origin_but_not_the_host(postgres_url: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(key_entry("x", Role.ADMIN, KEY))
    bearer = {"Authorization": f"Bearer {KEY}"}
    async with controller_api(postgres_url, api_key_file=tmp_path / "keys") as api:
        assert (await api.call("GET", "/ctrl/status", headers={**bearer, "Host": "any.example"}))[0] == 200
        assert await refused(api, "GET", "/ctrl/status", {**bearer, "Origin": "http://evil.example"})


async def test_allowed_hosts_reach_a_controller_without_keys(postgres_url: str) -> None:
    settings: dict[str, Any] = {"allowed_hosts": ("controller",), "controller_url": "https://plane.example"}
    async with controller_api(postgres_url, **settings) as api:
        for host in ("controller:8080", "plane.example", "localhost", "[::1]:1"):
            assert (await api.call("GET", "/ctrl/status", headers={"Host": host}))[0] == 200
        assert await refused(api, "GET", "/ctrl/status", {"Host": "other"})
        own = {"Origin": "https://plane.example"}
        assert (await api.call("GET", "/ctrl/status", headers=own))[0] == 200
        # Health checks of balancers name whatever they like.
        assert (await api.call("GET", "/pub/health", headers={"Host": "any"}))[0] == 200


async def test_web_pages_can_neither_drain_nor_open_node_sockets(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        state = f"/ctrl/c/{CLUSTER}/state"
        drain = f"/ctrl/c/{CLUSTER}/d/dr-fake/drain"
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            headers = {"Content-Type": kind, "Origin": "http://evil.example"}
            assert await refused(api, "POST", drain, headers, data=b"a=b")
        assert [found["draining"] for found in (await api.call("GET", state))[1]["drones"]] == [False]
        for path in (f"/ctrl/c/{CLUSTER}/drone-socket", f"/ctrl/c/{CLUSTER}/proxy-socket", "/ctrl/dns-socket"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await api.http.ws_connect(api.base + path, origin="http://evil.example")
            assert error.value.status == 403
