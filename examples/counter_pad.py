"""The demo: a shared counter and text pad over WebSocket, one process per key.

Listens on $PORT. Everything it knows is in memory: it is the authority over its key for as long as it runs.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from aiohttp import WSMsgType, web

TEXT_LIMIT = 10_000


class Pad:
    """The shared state, and everyone who watches it."""

    def __init__(self) -> None:
        self.count = 0
        self.text = ""
        self.watchers: set[web.WebSocketResponse] = set()

    def message(self) -> str:
        """What every watcher is told after each change."""
        return json.dumps({"count": self.count, "text": self.text, "watchers": len(self.watchers)})

    async def tell_all(self) -> None:
        """Send the state to everyone."""
        message = self.message()
        await asyncio.gather(*(watcher.send_str(message) for watcher in self.watchers), return_exceptions=True)

    def apply(self, change: dict[str, object]) -> None:
        """Apply what one watcher asked for; anything else is ignored."""
        if change.get("add") in (1, -1):
            self.count += int(str(change["add"]))
        text = change.get("text")
        if isinstance(text, str):
            self.text = text[:TEXT_LIMIT]


PAD: web.AppKey[Pad] = web.AppKey("pad", Pad)


async def page(request: web.Request) -> web.Response:
    """The page, with the names that Plane gave this process."""
    facts = {
        "KEY": os.environ.get("SESSION_BACKEND_KEY", "(none)"),
        "BACKEND": os.environ.get("SESSION_BACKEND_ID", "(none)"),
        "FENCING": os.environ.get("SESSION_BACKEND_FENCING_TOKEN", "(none)"),
    }
    html = Path(__file__).with_suffix(".html").read_text()
    for name, value in facts.items():
        html = html.replace(f"%{name}%", value.replace("&", "&amp;").replace("<", "&lt;"))
    return web.Response(text=html, content_type="text/html")


async def socket(request: web.Request) -> web.WebSocketResponse:
    """One watcher."""
    pad = request.app[PAD]
    ws = web.WebSocketResponse(heartbeat=30)
    await ws.prepare(request)
    pad.watchers.add(ws)
    await pad.tell_all()
    try:
        async for frame in ws:
            if frame.type is WSMsgType.TEXT:
                change = json.loads(frame.data)
                if isinstance(change, dict):
                    pad.apply(change)
                    await pad.tell_all()
    finally:
        pad.watchers.discard(ws)
        await pad.tell_all()
    return ws


def main() -> None:
    """Serve until told to stop."""
    app = web.Application()
    app[PAD] = Pad()
    app.add_routes([web.get("/", page), web.get("/socket", socket)])
    web.run_app(app, port=int(os.environ["PORT"]), print=None, shutdown_timeout=0.5)


if __name__ == "__main__":
    main()
