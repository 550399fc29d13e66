"""Where does a token lead? From the cache, else from the controller: one question per token, however many wait.

Cached by `plane.decisions.routing.route_cache`; what is asked, again or no more, by
`plane.decisions.routing.pending_lookups`. All sending is done by `run`: a request that ends while it waits leaves no
question half sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Literal

import structlog

from plane.decisions.routing.pending_lookups import QUESTIONS_LIMIT, RouteQuestions
from plane.decisions.routing.rewrite import Route, make_route
from plane.decisions.routing.route_cache import RouteCache
from plane.protocol.errors import MessageError
from plane.protocol.proxy_messages import RouteInfoResponse
from plane.throttled_log import ThrottledWarning

__all__ = ["RouteLookup"]

# How often is looked for questions that have failed or are to be sent again.
LOOK_INTERVAL_S = 1.0
# Without a look for this long, the process was stopped or its machine suspended; no load does that.
STOPPED_AFTER_S = 10.0

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
        # Goes on while the machine is suspended, as the leases of other machines' backends do.
        self._clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
        self._looked_at = self._clock()
        self._too_many = ThrottledWarning(log, "too many tokens are asked for at once; the oldest question has failed")
        self._questions = RouteQuestions(self._clock(), QUESTIONS_LIMIT)
        self._answers: dict[str, asyncio.Future[Route | Literal["failed"] | None]] = {}
        self._to_send: list[str] = []
        self._wake = asyncio.Event()

    @property
    def known_count(self) -> int:
        """Tokens whose way is known."""
        return len(self._cache)

    @property
    def question_count(self) -> int:
        """Questions under way."""
        return len(self._questions)

    def known(self, token: str) -> Route | Literal["gone", "unconfirmed"] | None:
        """What the cache says; see `RouteCache.get`."""
        now = self._clock()
        if now - self._looked_at > STOPPED_AFTER_S:
            self._look(now)
        return self._cache.get(token, now)

    def _look(self, now: float) -> None:
        if now - self._looked_at > STOPPED_AFTER_S:
            # This process was stopped. The end of its connection may not have been noticed yet.
            self._cache.doubt()
        self._looked_at = now

    async def ask(self, token: str) -> Route | None:
        """Ask the controller. None: the token leads nowhere.

        Raises:
            TimeoutError: no answer in time, or too many questions; the next request asks again.
        """
        # The answer may have come between the caller's look at the cache and this task's first step.
        known = self.known(token)
        if known is not None and known != "unconfirmed":
            return None if known == "gone" else known
        if self._questions.join(token, self._clock()):
            self._answers[token] = asyncio.get_running_loop().create_future()
            self._to_send.append(token)
            self._wake.set()
            if (oldest := self._questions.make_room()) is not None:
                self._too_many.warn(limit=QUESTIONS_LIMIT)
                self._resolve(oldest, "failed")
        answer = self._answers[token]
        try:
            route = await asyncio.shield(answer)
        finally:
            # An answered question is another one, if it is asked again meanwhile.
            if self._answers.get(token) is answer:
                self._questions.leave(token)
        if route == "failed":
            raise TimeoutError
        return route

    def answered(self, response: RouteInfoResponse) -> None:
        """The controller has answered."""
        route: Route | None = None
        info = response.route_info
        if info is not None:
            try:
                route = make_route(response.token, info, self._server_field)
            except MessageError as error:
                log.error("route cannot be followed", backend=info.backend_id, error=str(error))
        now = self._clock()
        if route is None:
            self._cache.put_gone(response.token, now)
        else:
            assert info is not None
            expires_at = now + info.expires_in_ms / 1000 if isinstance(info.expires_in_ms, int) else None
            self._cache.put(response.token, route, info.backend_id, expires_at, now)
            if self._cache.get(response.token, now) is not route:
                # Revoked, or its backend has ended, while the answer was on its way.
                route = None
        self._questions.answered(response.token)
        self._resolve(response.token, route)

    def forget_backend(self, backend_id: str) -> None:
        """The backend cannot be reached: the next request asks where its token leads."""
        self._cache.forget_backend(backend_id)

    def remove_backend(self, backend_id: str) -> None:
        """The backend has ended: its tokens lead nowhere, whatever an answer says that is on its way."""
        self._cache.remove_backend(backend_id, self._clock())

    def revoke(self, tokens: Iterable[str]) -> None:
        """They lead nowhere from now on, also for those who wait for one of them (A3)."""
        now = self._clock()
        for token in tokens:
            self._cache.revoke(token, now)
            self._questions.answered(token)
            self._resolve(token, None)

    def connected(self) -> None:
        """A new connection: what is unanswered is asked again, and what is known at its next use."""
        self._cache.connected(self._clock())
        self._to_send = self._questions.connected(self._clock())
        self._wake.set()

    def disconnected(self) -> None:
        """There is no connection."""
        self._cache.disconnected(self._clock())
        self._questions.disconnected(self._clock())

    async def run(self) -> None:
        """Send questions, and end those that have waited too long; until cancelled."""
        loop = asyncio.get_running_loop()
        next_look = loop.time() + LOOK_INTERVAL_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_look):
                    await self._wake.wait()
            self._wake.clear()
            self._look(self._clock())
            due, self._to_send = self._to_send, []
            if loop.time() >= next_look:
                again, failed, abandoned = self._questions.look(self._clock())
                due += again
                for token in failed:
                    log.warning("no controller said where a token leads", token=f"{token[:6]}…")
                    self._resolve(token, "failed")
                for token in abandoned:
                    del self._answers[token]
                next_look = loop.time() + LOOK_INTERVAL_S
            for token in due:
                await self._send(token)

    def _resolve(self, token: str, result: Route | Literal["failed"] | None) -> None:
        """Wake those who wait."""
        answer = self._answers.pop(token, None)
        if answer is not None:
            answer.set_result(result)
