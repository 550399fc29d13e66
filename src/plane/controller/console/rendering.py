"""Renders the console's pages and fragments from ``templates/``. All data is text: Jinja2 escapes it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

from plane.controller.console.visitor import Visitor
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus
from plane.version import this_version

if TYPE_CHECKING:
    import jinja2

__all__ = ["Renderer", "duration", "moment", "size"]

# Fragments are small; compressing them would cost more than it saves.
MIN_COMPRESSED_BYTES = 2048

_BETWEEN_TAGS = re.compile(r">\s+<")


class Renderer:
    """The templates of one controller. ``address_of`` returns the path of a static file."""

    def __init__(self, address_of: Callable[[str], str]) -> None:
        self._address_of = address_of

    @cached_property
    def _environment(self) -> jinja2.Environment:
        # Imported for the first page, so that a controller starts sooner.
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("plane.controller.console"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(moment=moment, duration=duration, size=size, path=lambda text: quote(text, safe=""))
        environment.globals.update(
            static=self._address_of, version=this_version().version, STATUSES=list(BackendStatus), json=_json
        )
        return environment

    def fragment(self, template: str, **values: Any) -> str:
        """Return a part of a page."""
        return _BETWEEN_TAGS.sub("> <", self._environment.get_template(template).render(**values))

    def page(self, template: str, visitor: Visitor, *, status: int = 200, **values: Any) -> web.Response:
        """Return a whole page."""
        text = self.fragment(template, visitor=visitor, status=status, **values)
        response = web.Response(text=text, status=status, content_type="text/html")
        if len(text) >= MIN_COMPRESSED_BYTES:
            response.enable_compression()
        return response

    def notice(self, message: str, *, status: int = 200) -> web.Response:
        """Return a message in the notice area of the page that the caller is on."""
        text = self.fragment("notice.html", message=message, is_error=status >= 400)
        headers = {"HX-Retarget": "#notice", "HX-Reswap": "innerHTML"}
        return web.Response(text=text, status=status, content_type="text/html", headers=headers)


def moment(seconds: float) -> str:
    """Return a time as UTC, to the second. ``seconds`` since 1970."""
    return f"{datetime.datetime.fromtimestamp(int(seconds), datetime.UTC):%Y-%m-%d %H:%M:%S}"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units; short ones to a hundredth of a second."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = int(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for name, length in units:
        count, whole = divmod(whole, length)
        if count or (name == "s" and not parts):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


def size(count: float) -> str:
    """Return a number of bytes with its unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _json(value: Any) -> str:
    return codec.encode(value).decode()
