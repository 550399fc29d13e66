"""`AsyncPlane`: the control API for programs on asyncio.

Sends the requests of `calls`, and retries where `plane.decisions.retry` allows it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

from plane.client import calls
from plane.client.calls import Call, OutputLine
from plane.client.controller_key import find_key, read_key_file
from plane.client.errors import BackendEnded, CallFailed, CallRefused, ControllerUnreachable, UnexpectedResponse
from plane.client.trace import connect_span
from plane.decisions.retry import ReconnectBackoff, is_transient, may_retry, retry_delay
from plane.protocol.backend_state import BackendStatus, BackendStatusStreamEntry
from plane.protocol.control_api import BackendUsage, ClusterState, ConnectRequest, ConnectResponse, ControllerStatus
from plane.protocol.errors import ApiErrorKind, PlaneError
from plane.protocol.event_feed import EventPage, FeedEvent
from plane.protocol.inspection import BackendDetail, BackendList, NodeList
from plane.protocol.keys import KeyConfig
from plane.protocol.spawn import SpawnConfig
from plane.protocol.webhooks import WebhookConfig, WebhookInfo, WebhookList, WebhookSecret, WebhookTest
from plane.transport.controller_url import ControllerUrl
from plane.transport.request_errors import request_error_reason
from plane.transport.server_sent_events import EventStreamReader, EventTooLarge, ServerSentEvent

__all__ = ["AsyncPlane"]

T = TypeVar("T")

# A call that waits for an unavailable database has a response within five seconds.
CALL_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
# A stream has a keepalive every 15 s.
STREAM_SILENCE_TIMEOUT_S = 45.0

_UNREACHABLE = (aiohttp.ClientError, OSError, TimeoutError)


class _Unavailable(PlaneError):
    """The controller, or a load balancer in front of it, responds that it is temporarily unavailable."""

    def __str__(self) -> str:
        return "it is temporarily unavailable"


@dataclass(slots=True)
class _Position:
    """Where a stream continues after a broken connection: the last id that was received, "" if none was."""

    id: str = ""


class AsyncPlane:
    """A client of a controller's API. Use it as ``async with``, or call `close`.

    Args:
        url: of the controller, ``http://HOST:PORT`` or ``https://HOST``.
        token: bearer token (an API key). Without one, the client uses the key in ``key_file``, in the URL
            (``https://TOKEN@HOST``), or the one that `plane.client.controller_key.find_key` finds, for example in
            ``PLANE_CONTROLLER_KEY``.
        key_file: a file with the API key.
        timeout_s: for a call, including its retries.

    Every call raises `ControllerUnreachable`, `CallRefused` or `UnexpectedResponse`, all of them `CallFailed`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        parsed = ControllerUrl.parse(url)
        if token is None and key_file is not None:
            token = read_key_file(Path(key_file), "key_file")
        self._url = parsed.with_key(token or parsed.bearer_token or find_key(parsed.base))
        self._timeout_s = timeout_s
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    # Backends.

    async def connect(
        self,
        key: str | KeyConfig | None = None,
        spawn_config: SpawnConfig | None = None,
        *,
        user: str | None = None,
        auth: dict[str, Any] | None = None,
    ) -> ConnectResponse:
        """Return the URL of the process that holds ``key``; it is spawned from ``spawn_config`` if there is none.

        Without a key a new process is spawned. The process receives ``user`` and ``auth`` as ``x-verified-username``
        and ``x-verified-user-data`` with each request through the URL.
        """
        named = KeyConfig(name=key) if isinstance(key, str) else key
        request = ConnectRequest(key=named, spawn_config=spawn_config, user=user, auth=auth or {})
        with connect_span() as fields:
            return await self._call(calls.connect(request), fields)

    async def status(self, backend: str) -> BackendStatusStreamEntry:
        """Return the current state of a backend."""
        return await self._call(calls.status(backend))

    async def status_stream(self, backend: str) -> AsyncIterator[BackendStatusStreamEntry]:
        """Yield all states of a backend, past ones first, each once, until it is terminated.

        The client reconnects after a broken connection.

        Raises:
            CallRefused: there is no such backend.
        """
        # The stream of an unknown backend stays open and empty.
        await self.status(backend)
        backoff = ReconnectBackoff()
        clock = asyncio.get_running_loop().time
        path, last_id = calls.status_stream_path(backend), ""
        while True:
            with suppress(*_UNREACHABLE, _Unavailable):
                async for event in self._events(path, last_id):
                    entry = calls.parse_event(event, BackendStatusStreamEntry)
                    backoff.connected(clock())
                    yield entry
                    last_id = event.id
                    if entry.status is BackendStatus.TERMINATED:
                        return
            await asyncio.sleep(backoff.ended(clock()))

    async def logs(self, backend: str, *, tail: int | None = None, follow: bool = False) -> AsyncIterator[OutputLine]:
        """Yield a backend's output, starting with the last ``tail`` lines (default 1000).

        Output is kept for an hour after the backend's end. With ``follow``, new lines are yielded until the backend
        ends, also after broken connections. A backend that is being started is waited for.

        Raises:
            CallRefused: there is no such backend, its output is no longer kept, or its drone does not respond.
        """
        backoff = ReconnectBackoff()
        clock = asyncio.get_running_loop().time
        path, last_id = calls.logs_path(backend, tail, follow=follow), ""
        may_be_starting = follow
        while True:
            try:
                async for event in self._events(path, last_id):
                    backoff.connected(clock())
                    yield calls.parse_event(event, OutputLine)
                    last_id = event.id
            except (*_UNREACHABLE, _Unavailable) as error:
                if not follow:
                    raise self._unreachable(error, sent=False) from error
            except CallRefused as error:
                if error.kind is not ApiErrorKind.NOT_FOUND or not may_be_starting:
                    raise
                # Once more after the start, which may have been between the two calls.
                may_be_starting = (await self.status(backend)).status.number < BackendStatus.WAITING.number
            else:
                return
            await asyncio.sleep(backoff.ended(clock()))

    async def until_ready(self, backend: str, *, timeout_s: float = 300.0) -> BackendStatusStreamEntry:
        """Wait until a backend is ready.

        Raises:
            BackendEnded: the backend ended before it was ready.
            TimeoutError: it is not ready within ``timeout_s``.
        """
        async with asyncio.timeout(timeout_s):
            entry = await self.status(backend)
            if entry.status.number < BackendStatus.READY.number:
                async for entry in self.status_stream(backend):
                    if entry.status.number >= BackendStatus.READY.number:
                        break
        if entry.status is BackendStatus.READY:
            return entry
        raise BackendEnded(backend, await self.with_output(backend, entry))

    async def with_output(self, backend: str, entry: BackendStatusStreamEntry) -> BackendStatusStreamEntry:
        """Return ``entry`` with the last lines of the backend's output in its message, if the API key permits it.

        The public status has only the reason.
        """
        if not isinstance(entry.message, str):
            return entry
        try:
            states = (await self.backend(backend)).states
        except CallFailed:
            return entry
        return next((state for state in states if state.status is entry.status), entry)

    async def terminate(self, backend: str, *, hard: bool = False) -> None:
        """Terminate a backend gracefully, or (``hard``) kill it.

        Returns when the order is stored, before it is done.
        """
        await self._call(calls.terminate(backend, hard=hard))

    async def revoke(self, backend: str, user: str) -> None:
        """Revoke the tokens of ``user`` for a backend, and close the connections opened with them."""
        await self._call(calls.revoke(backend, user))

    async def backends(
        self,
        *,
        cluster: str | None = None,
        status: str | None = None,
        key: str | None = None,
        namespace: str | None = None,
        limit: int | None = None,
    ) -> BackendList:
        """Return backends, the latest change first.

        ``status`` is a status, "live" (default; all but terminated) or "all". ``limit`` is 1 to 1000, default 100.
        """
        return await self._call(calls.backends(cluster, status, key, namespace, limit))

    async def backend(self, name: str) -> BackendDetail:
        """Return the details of a backend, including its past states."""
        return await self._call(calls.backend(name))

    async def usage(self, backend: str) -> BackendUsage:
        """Return the latest resource usage of a backend; refused with NotFound if there are no recent metrics."""
        return await self._call(calls.usage(backend))

    # Clusters.

    async def cluster_state(self, cluster: str) -> ClusterState:
        """Return the connected drones and proxies of a cluster."""
        return await self._call(calls.cluster_state(cluster))

    async def nodes(
        self, *, cluster: str | None = None, include_disconnected: bool = False, limit: int | None = None
    ) -> NodeList:
        """Return drones, proxies and DNS servers, only connected ones by default. ``limit``: 1 to 1000."""
        return await self._call(calls.nodes(cluster, include_disconnected=include_disconnected, limit=limit))

    async def drain(self, cluster: str, drone: str) -> bool:
        """Drain a drone: it gets no more backends. False if it was draining already."""
        return (await self._call(calls.drain(cluster, drone, undo=False))).updated

    async def undrain(self, cluster: str, drone: str) -> bool:
        """Assign backends to a drone again. False if it was not draining."""
        return (await self._call(calls.drain(cluster, drone, undo=True))).updated

    # Events and webhooks.

    async def events(
        self,
        *,
        after: int | None = None,
        before: int | None = None,
        types: Sequence[str] | None = None,
        key: str | None = None,
        limit: int | None = None,
    ) -> EventPage:
        """Return events of the feed, oldest first: those after a cursor, or the latest ones (before another).

        ``types``: for example ``["backend.*"]``. ``key``: the name of a key. ``limit``: 1 to 1000, default 100.

        Raises:
            CallRefused: status 410, the cursor is older than what is kept; its ``cursor`` is where the feed begins.
        """
        return await self._call(calls.events(after, before, types, key, limit))

    async def follow_events(
        self, *, after: int | None = None, types: Sequence[str] | None = None, key: str | None = None
    ) -> AsyncIterator[FeedEvent]:
        """Yield events after a cursor, by default new ones, each once, without an end.

        The client reconnects after a broken connection. A program that must miss nothing over its own restarts stores
        the ``id`` of the last event that it has processed, and passes it as ``after``.

        Raises:
            CallRefused: see `events`.
        """
        if after is None:
            after = (await self.events(limit=1)).cursor
        backoff = ReconnectBackoff()
        clock = asyncio.get_running_loop().time
        path, position = calls.event_stream_path(after, types, key), _Position()
        while True:
            with suppress(*_UNREACHABLE, _Unavailable):
                async for event in self._events(path, position.id, position):
                    backoff.connected(clock())
                    yield calls.parse_event(event, FeedEvent)
                    position.id = event.id
            await asyncio.sleep(backoff.ended(clock()))

    async def set_webhook(
        self, name: str, url: str, *, types: Sequence[str] | None = None, rotate_secret: bool = False
    ) -> WebhookSecret:
        """Make a webhook that posts events to ``url``, or change one. Only a new secret is in the result.

        ``types``: default ``["backend.*", "drone.*"]``.
        """
        given = {} if types is None else {"types": list(types)}
        config = WebhookConfig(url=url, rotate_secret=rotate_secret, **given)
        return await self._call(calls.set_webhook(name, config))

    async def webhooks(self) -> WebhookList:
        """Return all webhooks and their states."""
        return await self._call(calls.webhooks())

    async def webhook(self, name: str) -> WebhookInfo:
        """Return a webhook and its state."""
        return await self._call(calls.webhook(name))

    async def delete_webhook(self, name: str) -> None:
        """Delete a webhook; what it has not delivered yet is never delivered."""
        await self._call(calls.delete_webhook(name))

    async def test_webhook(self, name: str) -> WebhookTest:
        """Send a message of the type ``webhook.test`` now, and return the result."""
        return await self._call(calls.test_webhook(name))

    # Controllers.

    async def controller_status(self) -> ControllerStatus:
        """Return the version of the controller, if it and its database are available."""
        return await self._call(calls.controller_status())

    async def controller_metrics(self) -> str:
        """Return the controller's own metrics in Prometheus's text format."""
        return await self._call(calls.controller_metrics())

    # Implementation.

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_TIMEOUT_S)
            self._http = aiohttp.ClientSession(headers=self._url.headers, timeout=timeout)
        return self._http

    async def _call(self, call: Call[T], fields: Mapping[str, str] | None = None) -> T:
        headers = {**(fields or {}), **({"Content-Type": "application/json"} if call.body is not None else {})}
        content = call.content
        attempt = 1
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        async with self._session().request(
                            call.method, self._url.http(call.path), data=content, headers=headers
                        ) as response:
                            body = await response.read()
                        if not (is_transient(response.status) and self._may_retry(call, attempt, sent=True)):
                            return calls.parse_response(call, response.status, body)
                    except _UNREACHABLE as error:
                        sent = not isinstance(error, aiohttp.ClientConnectorError)
                        if not self._may_retry(call, attempt, sent=sent):
                            raise self._unreachable(error, sent=sent) from error
                    attempt += 1
                    await asyncio.sleep(retry_delay(attempt, random.random()))  # noqa: S311 - spreads load
        except TimeoutError as error:
            raise self._unreachable(error, sent=True) from error

    def _may_retry(self, call: Call[Any], attempt: int, *, sent: bool) -> bool:
        return may_retry(attempt, idempotent=call.idempotent, sent=sent)

    def _unreachable(self, error: BaseException, *, sent: bool) -> ControllerUnreachable:
        is_late = isinstance(error, TimeoutError)
        reason = f"no response within {self._timeout_s:g} s" if is_late else request_error_reason(error)
        return ControllerUnreachable(self._url.base, reason, sent=sent)

    async def _events(
        self, path: str, last_id: str, position: _Position | None = None
    ) -> AsyncIterator[ServerSentEvent]:
        """Yield the events of one connection to a stream, after the event ``last_id`` ("": from the beginning).

        ``position`` is moved by ids without events, which follow everything that was yielded before.

        Raises:
            _Unavailable: the controller, or a load balancer in front of it, is temporarily unavailable.
        """
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=STREAM_SILENCE_TIMEOUT_S)
        async with self._session().get(self._url.http(path), headers=headers, timeout=timeout) as response:
            if response.status != 200:
                if is_transient(response.status) or response.status == 500:
                    raise _Unavailable
                raise calls.refusal(response.status, await response.read())
            reader = EventStreamReader()
            try:
                async for chunk in response.content.iter_any():
                    for event in reader.feed(chunk):
                        yield event
                    if position is not None and reader.last_id:
                        position.id = reader.last_id
            except EventTooLarge as error:
                raise UnexpectedResponse(f"the stream is not that of a controller: {error}") from None
