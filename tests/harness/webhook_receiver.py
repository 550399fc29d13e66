"""A receiver of webhooks that checks every message with the `standardwebhooks` package, and misbehaves on request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

__all__ = ["Receiver", "webhook_receiver"]

Respond = Callable[[dict[str, Any]], Awaitable[web.StreamResponse] | web.StreamResponse]


class Receiver:
    """``messages``: what was accepted with a valid signature, as (id, body). ``respond`` makes the response."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.secret = ""
        self.messages: list[tuple[str, dict[str, Any]]] = []
        # Every message with a valid signature, whatever the response was.
        self.attempts: list[tuple[str, dict[str, Any]]] = []
        self.invalid: list[str] = []
        self.connections: set[Any] = set()
        self.respond: Respond = lambda _: web.Response()
        self.hook: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    def ids(self) -> list[str]:
        """The ids of accepted messages in the order of their first acceptance."""
        return list(dict.fromkeys(identifier for identifier, _ in self.messages))

    async def until(self, condition: Callable[[], bool], limit_s: float = 30.0) -> None:
        async with asyncio.timeout(limit_s):
            while not condition():
                await asyncio.sleep(0.02)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport)
        text = await request.text()
        try:
            body = Webhook(self.secret).verify(text, dict(request.headers))
        except Exception as error:
            self.invalid.append(f"{error}: {text[:200]}")
            return web.Response(status=401)
        assert json.loads(text) == body
        message = (request.headers["webhook-id"], body)
        self.attempts.append(message)
        if self.hook is not None:
            return await self.hook(request)
        response = self.respond(body)
        made = response if isinstance(response, web.StreamResponse) else await response
        if 200 <= made.status < 300:
            self.messages.append(message)
        return made


@asynccontextmanager
async def webhook_receiver(host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    """A receiver on any free port of ``host``."""
    receiver = Receiver("")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver._handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    receiver.url = f"http://{host}:{port}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()
