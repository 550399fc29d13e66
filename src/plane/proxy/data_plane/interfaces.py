"""What a client's connection, the dispatch of its requests and a connection to a backend see of each other.

Each of them knows these interfaces, and none of the classes that implement them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Protocol

from plane.decisions.http.error_format import ErrorFormat
from plane.decisions.http.exchange_commands import Connect
from plane.decisions.http.request_head import RequestHead
from plane.decisions.http.response_reader import ResponseReader
from plane.decisions.http.trusted_proxies import Visitor
from plane.decisions.routing.rewrite import Route
from plane.proxy.listeners.entry_point import EntryPoint
from plane.tracing.span import Span

__all__ = ["Cancellable", "Dispatch", "Requester", "Upstream", "UpstreamUser"]


class UpstreamUser(Protocol):
    """The client's connection, as a connection to a backend sees it while it serves its request."""

    def upstream_received(self, data: bytes) -> None:
        """The backend has sent ``data``."""

    def upstream_lost(self, *, orderly: bool) -> None:
        """The connection is closed. ``orderly``: by the end of what the backend sends, and not by an error."""

    def upstream_full(self) -> None:
        """The backend does not read what was sent to it."""

    def upstream_drained(self) -> None:
        """The backend has read what was sent to it."""


class Upstream(Protocol):
    """A connection to a backend, as the client's connection sees it."""

    responses: ResponseReader
    transport: asyncio.Transport | None
    writing_paused: bool

    def attach(self, user: UpstreamUser) -> None:
        """Report to ``user`` from now on."""

    def may_serve(self, route: Route, *, repeatable: bool) -> bool:
        """Return whether the connection, which is free, may serve another request of the same client."""

    def release(self) -> None:
        """The exchange is complete: let another client use the connection."""

    def keep(self) -> None:
        """The exchange is complete, and the client keeps the connection for its next request."""

    def detach_for_tunnel(self) -> None:
        """A tunnel takes the transport over."""

    def abort(self) -> None:
        """Close the connection at once."""


class Cancellable(Protocol):
    """What a request waits for."""

    def cancel(self) -> object:
        """Stop waiting, if that is not over yet."""


class Requester(Protocol):
    """The client's connection, as the dispatch of its request sees it."""

    entry_point: EntryPoint
    visitor: Visitor
    span: Span | None

    def error_format(self) -> ErrorFormat:
        """Return the format in which the client wants an error."""

    def closes(self) -> bool:
        """Return whether the connection closes after the response."""

    def respond(self, status: int) -> None:
        """Send a response that explains ``status``."""

    def respond_with(self, data: bytes) -> None:
        """Send a complete response."""

    def forward(self, route: Route, head_out: bytes, response_fields: bytes, rewritten_prefix: bytes) -> None:
        """Send ``head_out`` to the backend of ``route``, and add ``response_fields`` to its response.

        ``rewritten_prefix``: see `plane.decisions.routing.prefix_rewrite`; empty where nothing is rewritten.
        """

    def upstream_connected(self, upstream: Upstream, *, reused: bool) -> None:
        """There is a connection to the backend."""

    def connect_failed(self, *, timed_out: bool) -> None:
        """There is no connection to the backend."""

    def run(self, waiting: Coroutine[None, None, None]) -> None:
        """Run what the request waits for, as a task that ends with the client's connection."""

    def wait_for(self, waiting: Cancellable) -> None:
        """Cancel ``waiting`` if the client's connection ends."""


class Dispatch(Protocol):
    """Finds backends and connects to them, as the client's connection sees it."""

    def find_backend(self, requester: Requester, head: RequestHead) -> None:
        """Have ``requester`` forward the request or respond, before this returns unless something is waited for.

        ``head``: of the request; its target is in origin form.
        """

    def connect(self, requester: Requester, route: Route, how: Connect, kept: Upstream | None) -> None:
        """Get ``requester`` a connection. ``kept``: the one that it has kept; it is used or closed."""
