"""One document: everybody who opens it edits the same text. Plane runs one of these per document."""

import os
from pathlib import Path

from aiohttp import WSMsgType, web

PAGE = Path(__file__).with_name("document.html")


class Document:
    """The text, all changes since the start, and the connections of those who edit it."""

    def __init__(self) -> None:
        self.text = ""
        self.changes: list[tuple[str, int, int, str]] = []
        self.editors: set[web.WebSocketResponse] = set()

    def change(self, by: str, seen: int, at: int, removed: int, inserted: str) -> dict[str, object]:
        """Apply a change that was made after ``seen`` others; return what all editors apply."""
        for other, other_at, other_removed, other_inserted in self.changes[seen:]:
            if other_at < at or (other_at == at and other == by):
                at = max(other_at, at - other_removed) + len(other_inserted)
        at = min(at, len(self.text))
        self.text = self.text[:at] + inserted + self.text[at + removed :]
        self.changes.append((by, at, removed, inserted))
        return {"by": by, "seen": len(self.changes), "at": at, "removed": removed, "inserted": inserted}


async def page(_: web.Request) -> web.FileResponse:
    return web.FileResponse(PAGE)


async def edit(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(heartbeat=30)
    await socket.prepare(request)
    user = request.headers.get("x-verified-username", "somebody")
    await socket.send_json({"user": user, "seen": len(document.changes), "text": document.text})
    document.editors.add(socket)
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                applied = document.change(**message.json())
                for editor in list(document.editors):
                    await editor.send_json(applied)
    finally:
        document.editors.discard(socket)
    return socket


document = Document()
app = web.Application()
app.add_routes([web.get("/", page), web.get("/edit", edit)])
web.run_app(app, port=int(os.environ["PORT"]))
