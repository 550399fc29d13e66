"""Connections between nodes and controllers: typed messages over a WebSocket that a node re-establishes for ever.

`NodeSocket` is one open connection, on either side. `NodeConnector.run` keeps a node connected until cancelled, and
calls the node's session for each connection. The controller's side is in `plane.controller.nodes.session`. Connections
are described in ``docs/reference/protocol/node-sockets.md``.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import aiohttp
import structlog
from aiohttp import web
from msgspec import UNSET, UnsetType

from plane import timing
from plane.decisions.retry import ReconnectBackoff
from plane.os_errors import error_reason
from plane.protocol import codec
from plane.protocol.errors import ApiError, MessageError, PlaneError
from plane.protocol.handshake import DroneIdentity, Extension, Handshake
from plane.throttled_log import ThrottledWarning
from plane.transport.controller_url import ControllerUrl
from plane.transport.request_errors import request_error_reason
from plane.version import this_version

__all__ = ["NodeConnector", "NodeRefused", "NodeSocket", "SocketClosed"]

In = TypeVar("In")
Out = TypeVar("Out")

# Actions carry whole executables, whose size the controller limits to far less than this.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# The payload of a close frame has at most 125 bytes, including the code (RFC 6455, section 5.5).
MAX_CLOSE_REASON_BYTES = 120

_ENDS = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)

log = structlog.get_logger("plane.transport")


class SocketClosed(PlaneError):
    """The connection ended before the message was sent, or the peer stopped reading."""


class NodeRefused(PlaneError):
    """The controller has refused this node; the text has the reason."""


class NodeSocket(Generic[In, Out]):
    """One open connection after the handshakes. ``peer`` is the other side's handshake.

    ``close_reason``: the reason in the peer's close frame, if any.
    """

    def __init__(
        self, ws: aiohttp.ClientWebSocketResponse | web.WebSocketResponse, peer: Handshake, kind: type[In]
    ) -> None:
        self._ws = ws
        self._kind = kind
        self.peer = peer
        self.close_reason = ""

    async def send(self, message: Out) -> None:
        """Send one message.

        Raises:
            SocketClosed: the message may not have arrived.
        """
        await self.send_all([message])

    async def send_all(self, messages: Sequence[Out]) -> None:
        """Send several messages, in order and in as few packets as possible.

        Raises:
            SocketClosed: some messages may not have arrived.
        """
        try:
            with _SendTimeout():
                if len(messages) == 1:
                    await self._ws.send_str(codec.encode(messages[0]).decode())
                    return
                with _corked(self._ws.get_extra_info("socket")):
                    for message in messages:
                        await self._ws.send_str(codec.encode(message).decode())
        except (OSError, TimeoutError, aiohttp.ClientError, RuntimeError) as error:
            raise SocketClosed(f"connection to {self.peer.name} ended: {error}") from error

    async def messages(self) -> AsyncIterator[In]:
        """Yield the peer's messages until the connection ends.

        Messages that cannot be decoded are skipped, with a throttled warning.
        """
        undecodable = ThrottledWarning(log, "message not decoded", peer=self.peer.name)
        try:
            while (frame := await self._ws.receive()).type not in _ENDS:
                if frame.type is not aiohttp.WSMsgType.TEXT:
                    continue
                try:
                    message = codec.decode(frame.data, self._kind)
                except MessageError as error:
                    undecodable.warn(error=str(error))
                    continue
                yield message
            if frame.type is aiohttp.WSMsgType.CLOSE:
                self.close_reason = frame.extra or ""
        finally:
            undecodable.end()

    async def close(self) -> None:
        """Close the connection gracefully (1001, going away); the peer may reconnect at once.

        The connection is aborted if the peer does not respond to the close frame.
        """
        await self._close(aiohttp.WSCloseCode.GOING_AWAY, b"")

    async def refuse(self, reason: str) -> None:
        """Close the connection because the peer is refused (1008, policy violation); ``reason`` says what to do."""
        await self._close(aiohttp.WSCloseCode.POLICY_VIOLATION, reason.encode()[:MAX_CLOSE_REASON_BYTES])

    async def _close(self, code: int, reason: bytes) -> None:
        try:
            async with asyncio.timeout(timing.NODE_SEND_TIMEOUT_S):
                await self._ws.close(code=code, message=reason)
        except (OSError, RuntimeError) as error:
            log.info("connection not closed gracefully", peer=self.peer.name, error=error_reason(error))


class _SendTimeout:
    """Cancels a block after `timing.NODE_SEND_TIMEOUT_S`, and raises `TimeoutError` then.

    It is `asyncio.timeout` without its two coroutines, which take longer than everything else in sending one message.
    """

    __slots__ = ("_cancelling", "_expired", "_task", "_timer")

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False
        self._timer = asyncio.get_running_loop().call_later(timing.NODE_SEND_TIMEOUT_S, self._expire)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()


@contextmanager
def _corked(sock: socket.socket | None) -> Iterator[None]:
    """Combine what is written in the block into few packets (tcp(7)); each packet would wake the peer."""
    if sock is None or not hasattr(socket, "TCP_CORK"):
        yield
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    try:
        yield
    finally:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


class NodeConnector(Generic[In, Out]):
    """Keeps a node connected to a controller.

    Args:
        url: the controller.
        path: path and query of the node's socket.
        name: the node's name.
        kind: type of the received messages.
        session: called once per connection. It reads `NodeSocket.messages` to the end and then returns; it is cancelled
            with the connector.
        extensions: to Plane 0.5.5 that this node supports.
        identity: of a drone, beyond its name.
    """

    def __init__(
        self,
        url: ControllerUrl,
        path: str,
        name: str,
        kind: type[In],
        session: Callable[[NodeSocket[In, Out]], Awaitable[None]],
        extensions: tuple[Extension, ...] = (),
        identity: DroneIdentity | UnsetType = UNSET,
    ) -> None:
        self._url = url
        self._path = path
        self._kind = kind
        self._session = session
        self._own_handshake = Handshake(this_version(), name, extensions or UNSET, identity)

    async def run(self) -> None:
        """Connect, serve and reconnect until cancelled, which closes the connection gracefully."""
        backoff = ReconnectBackoff()
        clock = asyncio.get_running_loop().time
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=timing.NODE_HANDSHAKE_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._url.headers) as http:
            while True:
                graceful, reason, refused = False, "", ""
                try:
                    graceful = await self._one_connection(http, lambda: backoff.connected(clock()))
                except NodeRefused as error:
                    refused = str(error)
                except (OSError, TimeoutError, aiohttp.ClientError, PlaneError) as error:
                    reason = request_error_reason(error)
                    if isinstance(error, aiohttp.WSServerHandshakeError) and error.status in (401, 403):
                        refused = f"{reason}{await self._refusal(http)}"
                wait_s = backoff.ended(clock(), graceful=graceful)
                if refused:
                    log.warning(
                        "controller refuses this node", url=self._url.base, reason=refused, retry_in_s=round(wait_s, 1)
                    )
                elif reason:
                    log.warning("controller not reached", url=self._url.base, error=reason, retry_in_s=round(wait_s, 1))
                elif wait_s:
                    log.info("reconnecting", url=self._url.base, retry_in_s=round(wait_s, 1))
                await asyncio.sleep(wait_s)

    async def _one_connection(self, http: aiohttp.ClientSession, connected: Callable[[], None]) -> bool:
        """Serve one connection until it ends; return whether it ended gracefully."""
        async with http.ws_connect(
            self._url.websocket(self._path),
            heartbeat=timing.NODE_PING_INTERVAL_S,
            max_msg_size=MAX_MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=timing.NODE_SEND_TIMEOUT_S),
        ) as ws:
            socket: NodeSocket[In, Out] = NodeSocket(ws, await self._handshake(ws), self._kind)
            connected()
            log.info("connected to controller", url=self._url.base, controller=socket.peer.name)
            lifetime_s = timing.RECONNECT_EVERY_S + random.uniform(  # noqa: S311 - spreads load, guards nothing
                -timing.RECONNECT_JITTER_S, timing.RECONNECT_JITTER_S
            )
            try:
                async with asyncio.timeout(lifetime_s) as lifetime:
                    await self._session(socket)
            except TimeoutError:
                if not lifetime.expired():
                    raise
                log.info("reconnecting to spread load", controller=socket.peer.name)
                await socket.close()
                return True
            except asyncio.CancelledError:
                await asyncio.shield(socket.close())
                raise
            if ws.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION:
                raise NodeRefused(socket.close_reason or "no reason given")
            log.info("connection to controller ended", controller=socket.peer.name, code=ws.close_code)
            return ws.close_code in (aiohttp.WSCloseCode.GOING_AWAY, aiohttp.WSCloseCode.SERVICE_RESTART)

    async def _refusal(self, http: aiohttp.ClientSession) -> str:
        """Return the controller's message about the refusal of a connection: that of the WebSocket itself is lost."""
        try:
            async with (
                asyncio.timeout(timing.NODE_HANDSHAKE_TIMEOUT_S),
                http.get(self._url.http(self._path)) as response,
            ):
                error = codec.decode(await response.read(), ApiError)
        except (OSError, TimeoutError, aiohttp.ClientError, MessageError):
            return ""
        return f": {error.message}"

    async def _handshake(self, ws: aiohttp.ClientWebSocketResponse) -> Handshake:
        mine = self._own_handshake
        async with asyncio.timeout(timing.NODE_HANDSHAKE_TIMEOUT_S):
            await ws.send_str(codec.encode(mine).decode())
            try:
                theirs = codec.decode(await ws.receive_str(), Handshake)
            except TypeError:
                raise SocketClosed(f"closed before the handshake (code {ws.close_code})") from None
        if theirs.version != mine.version:
            log.info(
                "controller runs another version",
                ours=f"{mine.version.version}-{mine.version.git_hash}",
                theirs=f"{theirs.version.version}-{theirs.version.git_hash}",
            )
        return theirs
