"""Who requests a page of the console, what the visitor may do, and the type of the pages' handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from plane.decisions.access import Role
from plane.decisions.console.session import Session

__all__ = ["ConsoleHandler", "ConsoleRoute", "Visitor"]


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who requests a page. ``session`` is None on pages that need none, such as the sign-in.

    ``signs_in`` is false on a controller without API keys, where nobody can sign in or out. ``fields`` are those of the
    form that a change sends.
    """

    session: Session | None
    signs_in: bool = True
    fields: Mapping[str, str] = field(default_factory=dict)

    def may(self, role: Role) -> bool:
        """Return whether the visitor's API key includes ``role``."""
        return self.session is not None and self.session.key.role.may(role)

    @property
    def may_change(self) -> bool:
        """Whether pages show buttons for backends."""
        return self.may(Role.CONNECT)

    @property
    def may_administer(self) -> bool:
        """Whether pages show buttons for drones."""
        return self.may(Role.ADMIN)

    @property
    def name(self) -> str:
        """The name of the visitor's API key, for logs and for what it changes."""
        return "" if self.session is None else self.session.key.name


ConsoleHandler = Callable[[web.Request, Visitor], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class ConsoleRoute:
    """One method of one path. ``role``: required of the session's API key; None: no session is required."""

    method: str
    path: str
    handle: ConsoleHandler
    role: Role | None
