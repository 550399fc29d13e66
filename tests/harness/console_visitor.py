"""A browser without a screen, for tests of the console: it keeps cookies and sends what Chromium sends."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

__all__ = ["ConsoleVisitor", "Page", "console_visitor"]


@dataclass(frozen=True, slots=True)
class Page:
    """A response of the console."""

    status: int
    headers: dict[str, str]
    text: str
    size: int

    @property
    def csrf_token(self) -> str:
        """The token that the page's changes carry."""
        found = re.search(r'"X-CSRF-Token": "([0-9a-f]+)"', self.text)
        assert found is not None, self.text
        return found[1]


class ConsoleVisitor:
    """One browser."""

    def __init__(self, http: aiohttp.ClientSession, base: str) -> None:
        self.http = http
        self.base = base
        self.token = ""

    async def send(self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> Page:
        """Send a request; redirects are not followed."""
        async with self.http.request(
            method, self.base + path, headers=headers or {}, allow_redirects=False, auto_decompress=False, **more
        ) as response:
            body = await response.read()
            # 32: zlib and gzip.
            text = zlib.decompress(body, wbits=32 + 15) if "Content-Encoding" in response.headers else body
            return Page(response.status, dict(response.headers), text.decode(), len(body))

    async def get(self, path: str, **headers: str) -> Page:
        """Open a page."""
        return await self.send("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})

    async def post(self, path: str, *, origin: str | None = "own", token: str | None = None, **fields: str) -> Page:
        """Send a form, like htmx does."""
        headers = {"HX-Request": "true", "X-CSRF-Token": self.token if token is None else token}
        if origin is not None:
            headers["Origin"] = self.base if origin == "own" else origin
        return await self.send("POST", path, headers, data=fields)

    async def sign_in(self, key: str) -> Page:
        """Sign in, and keep the token of the first page."""
        response = await self.send("POST", "/console/sign-in", {"Origin": self.base}, data={"key": key})
        if response.status == 303:
            self.token = (await self.get("/console/drones")).csrf_token
        return response

    async def events(self, path: str, until: str, opened: asyncio.Event | None = None) -> str:
        """Read a stream until it contains a text, and return what was read. ``opened`` is set once it has begun."""
        read = b""
        async with self.http.get(self.base + path, headers={"Accept": "text/event-stream"}) as response:
            assert response.status == 200, await response.text()
            if opened is not None:
                opened.set()
            while until.encode() not in read:
                chunk = await response.content.readany()
                assert chunk, f"the stream ended without {until!r}: {read.decode()}"
                read += chunk
        return read.decode()


@asynccontextmanager
async def console_visitor(base: str) -> AsyncIterator[ConsoleVisitor]:
    """A browser with its own cookies."""
    jar = aiohttp.CookieJar(unsafe=True)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout) as http:
        yield ConsoleVisitor(http, base)
