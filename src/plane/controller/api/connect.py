"""``POST /ctrl/connect``: the URL of the process that holds a key, which is started if nobody has.

Decides nothing: `plane.decisions.keys.connect_request` does.
"""

from __future__ import annotations

import structlog
from aiohttp import web

from plane.controller.api.endpoints import Endpoint
from plane.controller.api.responses import json_answer, json_body
from plane.controller.context import CONTEXT, Context
from plane.database.connect import BackendExists, Lookup, NewBackend, Question, TokenGrant
from plane.decisions.access import Role
from plane.decisions.keys.connect_request import HeldKey, Reuse, Spawn, TryAgain, decide, next_fencing_token
from plane.decisions.keys.connect_validation import check_connect_request
from plane.decisions.keys.lease_deadlines import lease_deadlines
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus
from plane.protocol.control_api import ConnectRequest, ConnectResponse
from plane.protocol.drone_messages import BackendAction, BackendOrder, SpawnOrder
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.keys import AcquiredKey, KeyConfig
from plane.protocol.names import Prefix, cluster_url_scheme
from plane.random_ids import random_name, random_static_token, random_token
from plane.timing import CONNECT_ATTEMPTS

__all__ = ["CONNECT_ENDPOINTS", "conclude", "connect", "question", "reused"]

log = structlog.get_logger("plane.controller")


async def _handle(request: web.Request) -> web.Response:
    """The endpoint."""
    body = await json_body(request, ConnectRequest)
    return json_answer(await connect(request.app[CONTEXT], body))


async def connect(context: Context, request: ConnectRequest) -> ConnectResponse:
    """Get or create the backend of the request's key. Lost races are tried again, three attempts in all.

    Raises:
        ApiFailure
        DatabaseUnavailable
    """
    asked = question(context, request)
    found = await context.writes.first_trip(asked).add(asked) or await context.writes.look_ups.add(asked)
    return await conclude(context, request, asked, found)


def question(context: Context, request: ConnectRequest) -> Question:
    """What the database is asked first, once the request is found in order.

    Raises:
        ApiFailure
    """
    check_connect_request(request)
    config = request.spawn_config
    return Question(
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


def reused(context: Context, request: ConnectRequest, asked: Question, found: Lookup) -> ConnectResponse | None:
    """The answer if the key is held, which needs nothing more; None if there is more to do.

    Raises:
        ApiFailure
    """
    decision = decide(request, _cluster(context, request), found.key)
    return _held(context, decision.held, asked.grant) if isinstance(decision, Reuse) else None


async def conclude(context: Context, request: ConnectRequest, asked: Question, found: Lookup) -> ConnectResponse:
    """Go on with what the database has ``found`` for ``asked``; see `connect`."""
    for _ in range(CONNECT_ATTEMPTS - 1):
        answer = await _attempt(context, request, asked, found)
        if isinstance(answer, ConnectResponse):
            return answer
        asked = question(context, request)
        found = await context.writes.look_ups.add(asked)
    answer = await _attempt(context, request, asked, found)
    if isinstance(answer, ConnectResponse):
        return answer
    raise answer.failure


async def _attempt(
    context: Context, request: ConnectRequest, asked: Question, found: Lookup
) -> ConnectResponse | TryAgain:
    match decide(request, _cluster(context, request), found.key):
        case TryAgain() as again:
            return again
        case Reuse(held):
            return _held(context, held, asked.grant)
        case Spawn() as spawn:
            new = _new_backend(spawn, found, asked, key_is_random=request.key is None)
            try:
                if not await context.writes.spawns.add(new):
                    return TryAgain(ApiFailure(500, ApiErrorKind.FAILED_TO_ACQUIRE_KEY, "Failed to acquire lock."))
            except BackendExists:
                raise ApiFailure(
                    409,
                    ApiErrorKind.FAILED_TO_ACQUIRE_KEY,
                    f"spawn_config.id: a backend {new.backend_id!r} exists already, or existed; choose another id",
                ) from None
            log.info("spawning", backend=new.backend_id, key=asked.key.name, drone=spawn.drone.name)
            return _answer(
                context,
                backend_id=new.backend_id,
                cluster=new.cluster,
                subdomain=spawn.config.subdomain,
                status=BackendStatus.SCHEDULED,
                grant=asked.grant,
                static_token=new.static_token,
                drone=spawn.drone.name,
            )


def _held(context: Context, held: HeldKey, grant: TokenGrant) -> ConnectResponse:
    return _answer(
        context,
        backend_id=held.backend_id,
        cluster=held.cluster,
        subdomain=held.subdomain,
        status=held.status,
        grant=grant,
        static_token=held.static_token,
        drone=None,
    )


def _new_backend(spawn: Spawn, found: Lookup, asked: Question, *, key_is_random: bool) -> NewBackend:
    backend_id = spawn.config.id or random_name()
    acquired = AcquiredKey(
        key=asked.key,
        deadlines=lease_deadlines(spawn.drone.local_time),
        token=next_fencing_token(found.db_now_ms, found.last_fencing_token),
    )
    static_token = random_static_token() if spawn.config.use_static_token else None
    order = SpawnOrder(executable=spawn.config.executable, key=acquired, static_token=static_token)
    return NewBackend(
        backend_id=backend_id,
        cluster=spawn.cluster,
        config=spawn.config,
        key=acquired,
        key_is_random=key_is_random,
        static_token=static_token,
        grant=asked.grant,
        leased_at=spawn.drone.local_time,
        action=BackendAction(
            action_id=random_name(Prefix.BACKEND_ACTION),
            backend_id=backend_id,
            drone_id=spawn.drone.drone_id,
            action=BackendOrder(spawn=order),
        ),
    )


def _answer(
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
        summary="The URL of the process that holds a key, which is started if nobody has",
        role=Role.CONNECT,
        body=ConnectRequest,
        answer=ConnectResponse,
        refusals=(409,),
    ),
)
