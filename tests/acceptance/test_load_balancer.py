"""A real load balancer that ends TLS in front of the real proxy, as the documentation shows.

By fields, and by the PROXY protocol. Backends are told of the browser, whatever it says of itself.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from harness.certificates import Authority
from harness.haproxy import ADDRESS, documented, haproxy
from harness.program import PLANE
from harness.proxy_world import LIMIT_S, World, get, program_world, status

BROWSER = "127.0.0.3"
LIES = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: gopher", "X-Forwarded-Host: elsewhere", "X-Real-IP: 6.6.6.6")
OPTIONS = {"http": (), "tcp": ("--proxy-protocol",)}
TOLD = {
    "http": [f"x-forwarded-for: {BROWSER}, {ADDRESS}", "x-forwarded-proto: https"],
    "tcp": [f"x-forwarded-for: {BROWSER}", "x-forwarded-proto: https"],
}


def told(it: World) -> list[str]:
    """What the backend was told of the client last."""
    lines = it.heard[-1].decode().lower().split("\r\n")
    told = sorted(line for line in lines if "forwarded" in line or "real-ip" in line)
    # That one tells of the path.
    return [line for line in told if line != "x-forwarded-prefix: /t"]


@pytest.mark.parametrize("mode", ["http", "tcp"])
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_backends_behind_a_load_balancer_are_told_of_the_browser(mode: str, workers: str, tmp_path: Path) -> None:
    options = ("--trusted-proxies", f"{ADDRESS}/32", "--workers", workers, *OPTIONS[mode])
    authority = Authority(tmp_path)
    async with program_world(tmp_path, *options) as (it, proxy):
        with haproxy(tmp_path, authority, documented(mode), it.port) as port:
            for _ in range(4):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1",
                    port,
                    ssl=authority.client(),
                    server_hostname="localhost",
                    local_addr=(BROWSER, 0),
                )
                async with asyncio.timeout(LIMIT_S):
                    for _ in range(2):
                        writer.write(get("/t/", *LIES))
                        assert status(await reader.readuntil(b"ok")) == 200
                        assert told(it) == TOLD[mode]
                writer.close()
        # Its health checks are no errors.
        assert "PROXY header" not in proxy.log.read_text()
        # Without a load balancer the same proxy believes nobody.
        assert status(await it.send(get("/t/", *LIES))) == 200
        assert told(it) == ["x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http"]


def test_a_proxy_that_cannot_be_configured_so_says_why(tmp_path: Path) -> None:
    cases = {
        "--proxy-protocol needs --trusted-proxies": ["--proxy-protocol"],
        "--trusted-proxies: 10.0.0.1/8 has host bits set": ["--trusted-proxies", "10.0.0.1/8"],
        "--trusted-proxies: 'balancer' does not appear to be": ["--trusted-proxies", "127.0.0.1", "balancer"],
    }
    for said, options in cases.items():
        command = [str(PLANE), "proxy", "--controller-url", "http://127.0.0.1:1", "--cluster", "c", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 1
        assert said in done.stderr
    file = tmp_path / "proxy.json"
    fields = {"controller_url": "http://127.0.0.1:1", "cluster": "c", "trusted_proxies": ["10.0.0.0/8", "x"]}
    file.write_text(json.dumps({"Proxy": fields}))
    done = subprocess.run(
        [str(PLANE), "run-config", str(file)], capture_output=True, text=True, check=False, timeout=30
    )
    assert f"{file}: trusted_proxies: 'x' does not appear to be" in done.stderr
