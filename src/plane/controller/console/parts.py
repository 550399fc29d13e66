"""The parts of one controller's console, passed to its pages."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web

from plane.controller.console.guard import Guard
from plane.controller.console.rendering import Renderer
from plane.controller.console.streams import Mailbox, PageStreams, SharedViews
from plane.controller.console.visitor import Visitor
from plane.controller.context import Context
from plane.decisions.access import Role
from plane.decisions.console.activity import Activity
from plane.decisions.console.session import SessionSigner
from plane.protocol.backend_state import BackendStatus, state_from_builtins
from plane.protocol.errors import MessageError
from plane.protocol.notifications import Event

__all__ = ["ConsoleParts"]

# Most events are of other states, and need no decoding.
_COUNTED = frozenset({BackendStatus.SCHEDULED, BackendStatus.TERMINATED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleParts:
    """One controller's console. ``activity`` counts what the event bus brings."""

    context: Context
    signer: SessionSigner
    renderer: Renderer
    guard: Guard
    views: SharedViews
    streams: PageStreams
    activity: Activity = field(default_factory=lambda: Activity(time.time()))

    def on_state_event(self, event: Event) -> None:
        """Count a backend's new state; called by the event bus."""
        if (event.payload or {}).get("status") not in _COUNTED:
            return
        try:
            state = state_from_builtins(event.payload)
        except MessageError:
            # Streams of the backend log it.
            return
        self.activity.count(state, event.timestamp.timestamp(), time.time())

    async def send_events(self, request: web.Request, mailbox: Mailbox) -> web.StreamResponse:
        """Send a page its events for as long as its session is valid."""
        return await self.streams.send(request, mailbox, partial(self.is_admitted, request))

    def is_admitted(self, request: web.Request) -> bool:
        """Return whether the session of an open stream is still valid."""
        session = self.guard.session(request)
        return session is not None and session.key.role.may(Role.READ)

    def page(self, template: str, visitor: Visitor, **values: Any) -> web.Response:
        """Return a whole page."""
        return self.renderer.page(template, visitor, **values)
