"""``POST /ctrl/connect``: respond with the URL of the backend that holds a key, spawning it if none does.

`PendingConnect` is the one sequence of a connect request, used by the endpoint here and by `connect_fast_path`. What
follows from the database's result is decided in `plane.decisions.keys.connect_request`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import structlog
from aiohttp import web
from msgspec import UNSET

from plane.controller.api.endpoints import Endpoint
from plane.controller.api.responses import json_response, read_json
from plane.controller.context import CONTEXT, Context
from plane.database.connect import BackendExists, KeyQuery, NewBackend, TokenGrant
from plane.decisions.access import Role
from plane.decisions.keys.connect_request import HeldKey, KeyLookup, Retry, Reuse, Spawn, decide, next_fencing_token
from plane.decisions.keys.connect_validation import check_connect_request
from plane.decisions.keys.lease import lease_deadlines
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus
from plane.protocol.control_api import ConnectRequest, ConnectResponse
from plane.protocol.drone_messages import BackendAction, BackendOrder, SpawnOrder
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.keys import AcquiredKey, KeyConfig
from plane.protocol.names import Prefix, cluster_url_scheme
from plane.random_ids import random_name, random_static_token, random_token
from plane.timing import CONNECT_ATTEMPTS
from plane.tracing.span import Kind, Span, child, failure_text

__all__ = ["CONNECT_ENDPOINTS", "PendingConnect", "connect"]

log = structlog.get_logger("plane.controller")

Outcome: TypeAlias = ConnectResponse | BaseException


async def _handle(request: web.Request) -> web.Response:
    body = await read_json(request, ConnectRequest)
    return json_response(await connect(request.app[CONTEXT], body, request.headers.get("traceparent")))


async def connect(context: Context, request: ConnectRequest, traceparent: str | None = None) -> ConnectResponse:
    """Get or create the backend of the request's key. Lost races are retried, three attempts in all.

    Raises:
        ApiFailure
        DatabaseUnavailable
    """
    response: asyncio.Future[ConnectResponse] = asyncio.get_running_loop().create_future()

    def finish(outcome: Outcome) -> None:
        if response.done():
            return
        if isinstance(outcome, ConnectResponse):
            response.set_result(outcome)
        elif isinstance(outcome, asyncio.CancelledError):
            response.cancel()
        else:
            response.set_exception(outcome)

    pending = PendingConnect(context, request, finish, traceparent)
    try:
        return await response
    except asyncio.CancelledError:
        pending.waits_for.cancel()
        raise


class PendingConnect:
    """A connect request from its validation to its outcome.

    While its key is held it needs no task: a task costs a tenth of everything that such a request does. ``waits_for``
    is the statement, or the task, that it currently waits for; it may be cancelled.
    """

    __slots__ = ("_context", "_finish", "_query", "_request", "_span", "waits_for")

    def __init__(
        self,
        context: Context,
        request: ConnectRequest,
        finish: Callable[[Outcome], None],
        traceparent: str | None = None,
    ) -> None:
        """Validate the request and submit its first statement.

        Args:
            context: the controller's.
            request: the decoded request.
            finish: called once, later, with the response or the exception that ended the request (`ApiFailure`,
                `DatabaseUnavailable`, or `asyncio.CancelledError` after a cancellation).
            traceparent: the request's, if it has one.

        Raises:
            ApiFailure: the request is invalid; ``finish`` is not called.
        """
        self._context = context
        self._request = request
        self._finish = finish
        query = self._query = _key_query(context, request)
        self._span: Span | None = None
        if context.tracer is not None:
            self._span = context.tracer.start("POST /ctrl/connect", Kind.SERVER, traceparent)
            if self._span is not None:
                self._finish = partial(_finish_traced, self._span, finish)
        if context.connect_statements.is_held(query.key):
            self._wait_for(context.statements.reuses.submit_with_deadline(query))
        else:
            self._wait_for(context.statements.lookups.submit_with_deadline(query))

    def _wait_for(self, lookup: asyncio.Future[Any]) -> None:
        self.waits_for = lookup
        if self._span is not None:
            _measure(self._span, lookup)
        lookup.add_done_callback(self._on_lookup)

    def _on_lookup(self, done: asyncio.Future[KeyLookup | None]) -> None:
        if done.cancelled():
            self._finish(asyncio.CancelledError())
            return
        try:
            lookup = done.result()
            if lookup is None:
                # The holder ended a moment ago.
                self._wait_for(self._context.statements.lookups.submit_with_deadline(self._query))
                return
            decision = decide(self._request, _cluster(self._context, self._request), lookup)
            if not isinstance(decision, Reuse):
                self.waits_for = asyncio.create_task(self._conclude(decision, lookup))
                return
            response = _reused(self._context, decision.held, self._query.grant)
        except Exception as error:
            self._finish(error)
            return
        self._finish(response)

    async def _conclude(self, decision: Spawn | Retry, lookup: KeyLookup) -> None:
        try:
            response = await self._attempt(decision, lookup)
        except asyncio.CancelledError as error:
            self._finish(error)
            raise
        except Exception as error:
            self._finish(error)
            return
        self._finish(response)

    async def _attempt(self, decision: Reuse | Spawn | Retry, lookup: KeyLookup) -> ConnectResponse:
        for attempt in range(1, CONNECT_ATTEMPTS + 1):
            if isinstance(decision, Reuse):
                return _reused(self._context, decision.held, self._query.grant)
            if isinstance(decision, Spawn):
                spawned = await self._spawn(decision, lookup)
                if spawned is not None:
                    return spawned
                decision = Retry(ApiFailure(500, ApiErrorKind.FAILED_TO_ACQUIRE_KEY, "Failed to acquire lock."))
            if attempt == CONNECT_ATTEMPTS:
                raise decision.failure
            self._query = _key_query(self._context, self._request)
            with child(self._span, "look up key"):
                lookup = await self._context.statements.lookups.execute(self._query)
            decision = decide(self._request, _cluster(self._context, self._request), lookup)
        raise AssertionError("the last attempt returns or raises")

    async def _spawn(self, spawn: Spawn, lookup: KeyLookup) -> ConnectResponse | None:
        """Store the new backend; return None if another connect took the key concurrently."""
        with child(self._span, "spawn") as span:
            return await self._store(spawn, lookup, span)

    async def _store(self, spawn: Spawn, lookup: KeyLookup, span: Span | None) -> ConnectResponse | None:
        new = _new_backend(spawn, lookup, self._query, span, key_is_random=self._request.key is None)
        try:
            if not await self._context.statements.spawns.execute(new):
                return None
        except BackendExists:
            raise ApiFailure(
                409,
                ApiErrorKind.FAILED_TO_ACQUIRE_KEY,
                f"spawn_config.id: a backend {new.backend_id!r} exists already, or existed; choose another id",
            ) from None
        log.info("spawning backend", backend=new.backend_id, key=self._query.key.name, drone=spawn.drone.name)
        return _response(
            self._context,
            backend_id=new.backend_id,
            cluster=new.cluster,
            subdomain=spawn.config.subdomain,
            status=BackendStatus.SCHEDULED,
            grant=self._query.grant,
            static_token=new.static_token,
            drone=spawn.drone.name,
        )


def _key_query(context: Context, request: ConnectRequest) -> KeyQuery:
    check_connect_request(request)
    config = request.spawn_config
    return KeyQuery(
        key=request.key or KeyConfig(name=random_name(Prefix.RANDOM_KEY)),
        grant=TokenGrant(
            token=random_token(),
            secret_token=random_token(),
            user=request.user,
            auth=codec.encode(request.auth or {}).decode(),
        ),
        cluster=_cluster(context, request) if config else None,
        pool=config.pool if config else "",
        best_of=context.settings.best_of,
    )


def _cluster(context: Context, request: ConnectRequest) -> str | None:
    return (request.spawn_config.cluster if request.spawn_config else None) or context.settings.default_cluster


def _reused(context: Context, held: HeldKey, grant: TokenGrant) -> ConnectResponse:
    return _response(
        context,
        backend_id=held.backend_id,
        cluster=held.cluster,
        subdomain=held.subdomain,
        status=held.status,
        grant=grant,
        static_token=held.static_token,
        drone=None,
    )


def _measure(parent: Span, lookup: asyncio.Future[Any]) -> None:
    """Measure a statement that looks a key up as a step below ``parent``."""
    span = parent.child("look up key")
    if span is not None:
        lookup.add_done_callback(lambda _: span.end())


def _finish_traced(span: Span, finish: Callable[[Outcome], None], outcome: Outcome) -> None:
    """End the span of a request, and then the request."""
    match outcome:
        case ConnectResponse():
            span.set("http.response.status_code", 200)
            span.set("plane.backend", outcome.backend_id)
            span.set("plane.spawned", outcome.spawned)
        case ApiFailure(status=status) if status < 500:
            # A refusal is an error of the client, and none of this span (semantic conventions for HTTP).
            span.set("http.response.status_code", status)
        case _:
            span.fail(failure_text(outcome))
    span.end()
    finish(outcome)


def _new_backend(
    spawn: Spawn, lookup: KeyLookup, query: KeyQuery, span: Span | None, *, key_is_random: bool
) -> NewBackend:
    backend_id = spawn.config.id or random_name()
    acquired = AcquiredKey(
        key=query.key,
        deadlines=lease_deadlines(spawn.drone.local_time),
        token=next_fencing_token(lookup.db_now_ms, lookup.last_fencing_token),
    )
    static_token = random_static_token() if spawn.config.use_static_token else None
    order = SpawnOrder(
        executable=spawn.config.executable,
        key=acquired,
        static_token=static_token,
        traceparent=UNSET if span is None else span.traceparent,
        clock=spawn.drone.clock or UNSET,
    )
    return NewBackend(
        backend_id=backend_id,
        cluster=spawn.cluster,
        config=spawn.config,
        key=acquired,
        key_is_random=key_is_random,
        static_token=static_token,
        grant=query.grant,
        leased_at=spawn.drone.local_time,
        action=BackendAction(
            action_id=random_name(Prefix.BACKEND_ACTION),
            backend_id=backend_id,
            drone_id=spawn.drone.drone_id,
            action=BackendOrder(spawn=order),
        ),
    )


def _response(
    context: Context,
    *,
    backend_id: str,
    cluster: str,
    subdomain: str | None,
    status: BackendStatus,
    grant: TokenGrant,
    static_token: str | None,
    drone: str | None,
) -> ConnectResponse:
    token = static_token or grant.token
    host = f"{subdomain}.{cluster}" if subdomain else cluster
    return ConnectResponse(
        backend_id=backend_id,
        spawned=drone is not None,
        status=status,
        token=token,
        url=f"{cluster_url_scheme(cluster)}://{host}/{token}/",
        subdomain=subdomain,
        secret_token=None if static_token else grant.secret_token,
        status_url=f"{context.public_url}/pub/b/{backend_id}/status",
        drone=drone,
    )


CONNECT_ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/ctrl/connect",
        handle=_handle,
        summary="The URL of the process that holds a key; it is spawned if there is none",
        role=Role.CONNECT,
        body=ConnectRequest,
        response=ConnectResponse,
        refusals=(409,),
    ),
)
