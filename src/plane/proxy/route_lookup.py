"""Where does a token lead? From the cache, else from the controller: one question per token, however many wait.

Cached by `plane.decisions.route_cache`; what is asked, again or no more, by `plane.decisions.route_questions`. All
sending is done by `run`: a request that ends while it waits leaves no question half sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Literal

import structlog

from plane.decisions.request_rewrite import Route, make_route
from plane.decisions.route_cache import RouteCache
from plane.decisions.route_questions import QUESTIONS_LIMIT, RouteQuestions
from plane.protocol.errors import MessageError
from plane.protocol.proxy_messages import RouteInfoResponse

__all__ = ["RouteLookup"]

# How often is looked for questions that have failed or are to be sent again.
LOOK_INTERVAL_S = 1.0

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
        self._clock = asyncio.get_running_loop().time
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

    def known(self, token: str) -> Route | Literal["gone"] | None:
        """What the cache says; None if the controller must be asked."""
        return self._cache.get(token, self._clock())

    async def ask(self, token: str) -> Route | None:
        """Ask the controller. None: the token leads nowhere.

        Raises:
            TimeoutError: no answer in time; the next request asks again.
        """
        # The answer may have come between the caller's look at the cache and this task's first step.
        known = self.known(token)
        if known is not None:
            return None if known == "gone" else known
        is_new = self._questions.join(token, self._clock())
        if is_new is None:
            log.warning("too many tokens are asked for at once; one more is refused", limit=QUESTIONS_LIMIT)
            raise TimeoutError
        if is_new:
            self._answers[token] = asyncio.get_running_loop().create_future()
            self._to_send.append(token)
            self._wake.set()
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
            self._cache.put(response.token, route, info.backend_id, expires_at)
        self._questions.answered(response.token)
        self._resolve(response.token, route)

    def forget_backend(self, backend_id: str) -> None:
        """The backend is no more, or cannot be reached: the next request asks where its token leads."""
        self._cache.remove_backend(backend_id)

    def revoke(self, tokens: Iterable[str]) -> None:
        """They lead nowhere from now on, also for those who wait for one of them (A3)."""
        now = self._clock()
        for token in tokens:
            self._cache.revoke(token, now)
            self._questions.answered(token)
            self._resolve(token, None)

    def connected(self) -> None:
        """A new connection: what is unanswered is asked again."""
        self._to_send = self._questions.connected(self._clock())
        self._wake.set()

    def disconnected(self) -> None:
        """There is no connection."""
        self._questions.disconnected(self._clock())

    async def run(self) -> None:
        """Send questions, and end those that have waited too long; until cancelled."""
        next_look = self._clock() + LOOK_INTERVAL_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_look):
                    await self._wake.wait()
            self._wake.clear()
            due, self._to_send = self._to_send, []
            if self._clock() >= next_look:
                again, failed, abandoned = self._questions.look(self._clock())
                due += again
                for token in failed:
                    log.warning("no controller said where a token leads", token=f"{token[:6]}…")
                    self._resolve(token, "failed")
                for token in abandoned:
                    del self._answers[token]
                next_look = self._clock() + LOOK_INTERVAL_S
            for token in due:
                await self._send(token)

    def _resolve(self, token: str, result: Route | Literal["failed"] | None) -> None:
        """Wake those who wait."""
        answer = self._answers.pop(token, None)
        if answer is not None:
            answer.set_result(result)
