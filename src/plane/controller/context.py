"""The parts of one running controller, passed to all its endpoints."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from plane.controller.api.admitted_requests import AdmittedRequests
from plane.controller.api.api_keys import ApiKeyFile
from plane.controller.api.forward_auth import ForwardAuth
from plane.controller.api.stream_registry import StreamRegistry
from plane.controller.batched_statements import BatchedStatements
from plane.controller.connect_statements import ConnectStatements
from plane.controller.feed_tail import FeedTail
from plane.controller.nodes.metrics_cache import MetricsCache
from plane.controller.nodes.node_registry import NodeRegistry
from plane.controller.webhooks.dispatcher import WebhookDispatcher
from plane.database.event_bus import EventBus
from plane.database.pool import Database
from plane.decisions.access import ApiKeys
from plane.decisions.http.request_source import SourceRules
from plane.settings import ControllerSettings
from plane.tracing.span import Tracer

__all__ = ["CONTEXT", "Context"]


@dataclass(frozen=True, slots=True)
class Context:
    """One running controller.

    Attributes:
        public_url: its URL for clients, used in status URLs.
        tracer: None if traces are not exported.
    """

    settings: ControllerSettings
    public_url: str
    db: Database
    bus: EventBus
    connect_statements: ConnectStatements
    statements: BatchedStatements
    metrics: MetricsCache
    nodes: NodeRegistry
    streams: StreamRegistry
    feed_tail: FeedTail
    webhooks: WebhookDispatcher
    api_keys: ApiKeyFile | ApiKeys | None
    admitted: AdmittedRequests
    forward_auth: ForwardAuth | None
    source_rules: SourceRules
    tracer: Tracer | None


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)
