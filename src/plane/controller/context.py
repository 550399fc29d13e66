"""What every part of a controller is given: its settings, the database and what is written to it, the event bus."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from plane.controller.api.api_keys import ApiKeyFile
from plane.controller.api.forward_auth import ForwardAuth
from plane.controller.api.stream_registry import OpenStreams
from plane.controller.batched_statements import Writes
from plane.controller.nodes.metrics_cache import LatestMetrics
from plane.controller.nodes.node_registry import OpenSockets
from plane.database.event_bus import EventBus
from plane.database.pool import Database
from plane.decisions.access import ApiKeys
from plane.decisions.http.request_source import SourceRules
from plane.settings import ControllerSettings

__all__ = ["CONTEXT", "Context"]


@dataclass(frozen=True, slots=True)
class Context:
    """One running controller. ``public_url`` is how others reach it; it stands in status URLs."""

    settings: ControllerSettings
    public_url: str
    db: Database
    bus: EventBus
    writes: Writes
    metrics: LatestMetrics
    sockets: OpenSockets
    streams: OpenStreams
    api_keys: ApiKeyFile | ApiKeys | None
    forward_auth: ForwardAuth | None
    source_rules: SourceRules


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)
