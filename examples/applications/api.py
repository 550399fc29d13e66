"""A FastAPI application whose absolute addresses work behind Plane: `uvicorn api:app`."""

from typing import Annotated, Any

from fastapi import FastAPI, Header, Request, WebSocket
from fastapi.responses import HTMLResponse, RedirectResponse

app = FastAPI()


class ForwardedPrefix:
    """ASGI middleware that takes the path below which the application runs from `x-forwarded-prefix`."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            prefix = dict(scope["headers"]).get(b"x-forwarded-prefix", b"").decode()
            # ASGI: the path has the root path.
            scope = {**scope, "root_path": prefix, "path": prefix + scope["path"]}
        await self.app(scope, receive, send)


app.add_middleware(ForwardedPrefix)


@app.get("/", response_class=HTMLResponse)
async def index(request: Request) -> str:
    return f'<!doctype html><title>FastAPI</title><a href="{request.url_for("old")}">to the item</a>'


@app.get("/old")
async def old(request: Request) -> RedirectResponse:
    return RedirectResponse(request.url_for("item", name="lamp"))


@app.get("/items/{name}")
async def item(name: str, x_verified_username: Annotated[str | None, Header()] = None) -> dict[str, str | None]:
    return {"name": name, "user": x_verified_username}


@app.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)
