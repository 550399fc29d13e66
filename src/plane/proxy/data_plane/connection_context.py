"""What all client connections of a proxy share. `plane.proxy.service` makes it; `client_connection` works with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from plane.decisions.http.exchange_steps import ExchangeRules
from plane.decisions.http.trusted_proxies import TrustedProxies
from plane.decisions.routing.host_names import HostNames
from plane.decisions.routing.rewrite import Route
from plane.proxy.data_plane.interfaces import Dispatch
from plane.proxy.data_plane.keepalive_reporter import KeepaliveReporter
from plane.proxy.data_plane.tunnels import Tunnels
from plane.tracing.span import Tracer

__all__ = ["ConnectionContext", "OpenConnection"]


class OpenConnection(Protocol):
    """A client's connection, as the sweep of deadlines and the stop of the proxy see it."""

    @property
    def deadline(self) -> float | None:
        """When it expires (monotonic). None: the wait is not limited."""

    @property
    def route(self) -> Route | None:
        """Of the request that is being served."""

    def expire(self) -> None:
        """Handle a deadline that has passed."""

    def stop(self) -> None:
        """The proxy stops: close after the response."""

    def cut(self) -> None:
        """Close at once."""


@dataclass(slots=True, eq=False)
class ConnectionContext:
    """What all client connections share.

    Attributes:
        now: a monotonic clock, in seconds.
        has_room: whether one more connection may be open.
        cluster: the cluster's own name, as by `normal_host`.
        connections: those that are open, tunnels aside.
        responses_begun: how many, by the first digit of their status.
        tracer: None if traces are not exported.
        stopping: whether the proxy stops: connections close after their response.
    """

    now: Callable[[], float]
    has_room: Callable[[], bool]
    rules: ExchangeRules
    names: HostNames
    cluster: bytes
    trusted_proxies: TrustedProxies
    dispatch: Dispatch
    keepalive: KeepaliveReporter
    tunnels: Tunnels
    tracer: Tracer | None
    connections: set[OpenConnection] = field(default_factory=set)
    responses_begun: list[int] = field(default_factory=lambda: [0] * 6)
    stopping: bool = False
