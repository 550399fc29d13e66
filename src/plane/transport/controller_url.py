"""A controller's URL as operators write it, and the URLs and headers of requests to it.

``http`` and ``ws`` (``https`` and ``wss``) are interchangeable. A user name in the URL is a bearer token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from plane.protocol.errors import ConfigurationError

__all__ = ["ControllerUrl"]

_HTTP = {"http": "http", "ws": "http", "https": "https", "wss": "https"}


@dataclass(frozen=True, slots=True)
class ControllerUrl:
    """The URL of a controller. ``base`` is ``http(s)://host[:port][/path]`` without a trailing slash."""

    base: str
    bearer_token: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> ControllerUrl:
        """Parse a URL.

        Raises:
            ConfigurationError: not the URL of a controller.
        """
        try:
            parts = urlsplit(text)
            scheme, host, port = _HTTP.get(parts.scheme), parts.hostname, parts.port
        except ValueError:
            scheme, host, port = None, None, None
        if scheme is None or not host:
            raise ConfigurationError(
                f"controller URL {_without_key(text)!r} is not of the form http://HOST[:PORT] or https://HOST[:PORT]"
            )
        netloc = f"[{host}]" if ":" in host else host
        if port is not None:
            netloc = f"{netloc}:{port}"
        return cls(
            base=f"{scheme}://{netloc}{parts.path.rstrip('/')}",
            bearer_token=unquote(parts.username) if parts.username else None,
        )

    def with_key(self, key: str | None) -> ControllerUrl:
        """Return the same URL with another bearer token."""
        return ControllerUrl(self.base, key)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request to this controller."""
        return {"Authorization": f"Bearer {self.bearer_token}"} if self.bearer_token else {}

    def http(self, path: str) -> str:
        """Return the URL of ``path`` for a plain request."""
        return f"{self.base}{path}"

    def websocket(self, path: str) -> str:
        """Return the URL of ``path`` for a WebSocket."""
        return f"ws{self.base.removeprefix('http')}{path}"


def _without_key(text: str) -> str:
    """Return ``text`` for an error message, without a possible key."""
    before, at, host = text.rpartition("@")
    return f"{before[: before.find('//') + 2] if '//' in before else ''}…@{host}" if at else text
