"""The files of ``static/``: the console's own, and unchanged copies of htmx and uPlot.

Addresses contain a hash of the file, so browsers keep a file for as long as it is unchanged. Files are compressed once,
when the controller starts. ``static/vendored.json`` has the versions and hashes of the copies.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources

from aiohttp import web

from plane.controller.console.visitor import ConsoleRoute, Visitor
from plane.protocol.errors import ApiErrorKind, ApiFailure

__all__ = ["StaticFiles"]

_MEDIA = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}
_FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    compressed: bytes
    media: str
    version: str


class StaticFiles:
    """All files, in memory."""

    def __init__(self) -> None:
        folder = resources.files(__package__).joinpath("static")
        self._files = {
            file.name: _File(body, gzip.compress(body, mtime=0), media, hashlib.sha256(body).hexdigest()[:16])
            for file in folder.iterdir()
            if (media := _MEDIA.get(file.name.rpartition(".")[2])) is not None
            for body in (file.read_bytes(),)
        }

    def address(self, name: str) -> str:
        """Return the path of a file."""
        return f"/console/static/{self._files[name].version}/{name}"

    def route(self) -> ConsoleRoute:
        """Return the route of all files; they are public."""
        return ConsoleRoute("GET", "/console/static/{version}/{name}", self._serve, role=None)

    async def _serve(self, request: web.Request, _: Visitor) -> web.Response:
        file = self._files.get(request.match_info["name"])
        if file is None:
            raise ApiFailure(404, ApiErrorKind.NOT_FOUND, "The console has no such file")
        # During an upgrade, a page of another version may request a file here. This version's is better than none.
        is_same = file.version == request.match_info["version"]
        headers = {"Cache-Control": _FOREVER if is_same else "no-store", "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return web.Response(body=file.compressed, content_type=file.media, charset="utf-8", headers=headers)
        return web.Response(body=file.body, content_type=file.media, charset="utf-8", headers=headers)
