"""Where does a token lead? From the cache, else from the controller: one question per token, however many wait.

Cached by `plane.decisions.route_cache`. Every wait is bounded (A23): without a connection a question fails
soon; with one it may wait as long as a backend may take to start. A new connection is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

import structlog

from plane.decisions.request_rewrite import Route, make_route
from plane.decisions.route_cache import RouteCache
from plane.protocol.errors import MessageError
from plane.protocol.proxy_messages import RouteInfoResponse
from plane.timing import STARTUP_TIMEOUT_S

__all__ = ["RouteLookup"]

# Questions that the controller has not answered yet; above this a request fails at once.
QUESTIONS_LIMIT = 1_000
# While there is no connection to a controller.
DISCONNECTED_LIMIT_S = 10.0
# With one: the controller answers when the backend is ready, or has ended.
ANSWER_LIMIT_S = STARTUP_TIMEOUT_S + 90

log = structlog.get_logger("plane.proxy")


class RouteLookup:
    """Questions and answers about tokens.

    Args:
        send: asks the controller, or does nothing without a connection.
        server_field: part of every route's answers.
    """

    def __init__(self, send: Callable[[str], Awaitable[None]], server_field: bytes) -> None:
        self._send = send
        self._server_field = server_field
        self._cache: RouteCache[Route] = RouteCache()
        self._questions: dict[str, asyncio.Future[Route | None]] = {}
        self._clock = asyncio.get_running_loop().time
        self._connected = asyncio.Event()

    def known(self, token: str) -> Route | Literal["gone"] | None:
        """What the cache says; None if the controller must be asked."""
        return self._cache.get(token, self._clock())

    async def ask(self, token: str) -> Route | None:
        """Ask the controller. None: the token leads nowhere.

        Raises:
            TimeoutError: no answer in time; the next request asks again.
        """
        answer = self._questions.get(token)
        if answer is None:
            if len(self._questions) >= QUESTIONS_LIMIT:
                log.warning("too many tokens are asked for at once; one more is refused", limit=QUESTIONS_LIMIT)
                raise TimeoutError
            answer = self._questions[token] = asyncio.get_running_loop().create_future()
            await self._send(token)
        try:
            async with asyncio.timeout(DISCONNECTED_LIMIT_S):
                await self._connected.wait()
            async with asyncio.timeout(ANSWER_LIMIT_S):
                return await asyncio.shield(answer)
        except TimeoutError:
            self._questions.pop(token, None)
            log.warning("no controller said where a token leads", token=f"{token[:6]}…")
            raise

    def answered(self, response: RouteInfoResponse) -> None:
        """The controller has answered."""
        route: Route | None = None
        info = response.route_info
        if info is not None:
            try:
                route = make_route(info, self._server_field)
            except MessageError as error:
                log.error("route cannot be followed", backend=info.backend_id, error=str(error))
        now = self._clock()
        if route is None:
            self._cache.put_gone(response.token, now)
        else:
            assert info is not None
            expires_at = now + info.expires_in_ms / 1000 if isinstance(info.expires_in_ms, int) else None
            self._cache.put(response.token, route, info.backend_id, expires_at)
        answer = self._questions.pop(response.token, None)
        if answer is not None and not answer.done():
            answer.set_result(route)

    def backend_removed(self, backend_id: str) -> None:
        """The backend is no more."""
        self._cache.remove_backend(backend_id)

    async def connected(self) -> None:
        """A new connection: what is unanswered is asked again."""
        self._connected.set()
        for token in list(self._questions):
            await self._send(token)

    def disconnected(self) -> None:
        """There is no connection."""
        self._connected.clear()
