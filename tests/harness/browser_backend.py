"""A backend that a browser talks to in every way that browsers have: run as a program, on $PORT."""

from __future__ import annotations

import asyncio
import os

from aiohttp import WSMsgType, web

PAGE = """<!doctype html><html lang="en"><title>parts</title><link rel="stylesheet" href="style.css">
<a id="relative" href="deep/page">a relative link</a></html>"""
DOWNLOAD_CHUNKS = 64
CHUNK = bytes(range(256)) * 256


async def page(request: web.Request) -> web.Response:
    response = web.Response(text=PAGE, content_type="text/html")
    response.set_cookie("session", "a-cookie", path="/", httponly=False)
    return response


async def style(request: web.Request) -> web.Response:
    return web.Response(text="body { color: rgb(1, 2, 3) }", content_type="text/css")


async def deep(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "path": request.path,
            "referer": request.headers.get("Referer"),
            "cookies": dict(request.cookies),
            "user": request.headers.get("X-Verified-Username"),
        }
    )


async def upload(request: web.Request) -> web.Response:
    total = 0
    async for part in request.content.iter_any():
        total += len(part)
    return web.json_response({"method": request.method, "bytes": total})


async def download(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(DOWNLOAD_CHUNKS):
        await response.write(CHUNK)
    await response.write_eof()
    return response


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(3):
        await response.write(f"id: {number}\ndata: event {number}\n\n".encode())
        await asyncio.sleep(0.05)
    await asyncio.Event().wait()
    return response


async def socket(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(protocols=("parts",), max_msg_size=8 * 1024 * 1024)
    await ws.prepare(request)
    async for message in ws:
        if message.type is WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    return ws


def main() -> None:
    app = web.Application(client_max_size=0)
    app.add_routes(
        [
            web.get("/", page),
            web.get("/style.css", style),
            web.get("/deep/page", deep),
            web.route("*", "/upload", upload),
            web.get("/download", download),
            web.get("/events", events),
            web.get("/socket", socket),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None)


if __name__ == "__main__":
    main()
