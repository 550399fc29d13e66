"""Posts one message to the receiver of a webhook, signed as the Standard Webhooks specification requires.

The receiver may be malicious: every wait and every size has a limit, redirects are not followed, and the address of
each connection is checked when its socket is made. A name that resolves to another address later gains nothing.
"""

from __future__ import annotations

import asyncio
import datetime
import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from standardwebhooks import Webhook

from plane.database.webhooks import WebhookTarget
from plane.decisions.http.trusted_proxies import Network
from plane.decisions.webhooks.delivery import Attempt, Outcome, outcome_of_status
from plane.decisions.webhooks.target import address_refusal
from plane.os_errors import error_reason
from plane.protocol import codec
from plane.protocol.event_feed import FeedEvent
from plane.transport.request_errors import request_error_reason
from plane.version import this_version

__all__ = ["CONNECTIONS_PER_HOST", "WebhookSender", "event_message", "open_sender", "test_message"]

# From the name lookup to the end of the response's head.
RESPONSE_TIMEOUT_S = 15.0
# A connection is reused only if the response's body ends within these limits; the status has already decided.
BODY_TIMEOUT_S = 1.0
MAX_BODY_BYTES = 64 * 1024
CONNECTIONS_PER_HOST = 8
KEEP_ALIVE_S = 15.0


class WebhookSender:
    """Sends messages over the connections of one session; see `open_sender`."""

    def __init__(self, http: aiohttp.ClientSession, timeout_s: float) -> None:
        self._http = http
        self._timeout_s = timeout_s

    async def send(self, target: WebhookTarget, message_id: str, body: bytes) -> Attempt:
        """Post a message and return the result."""
        now = datetime.datetime.now(datetime.UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"plane/{this_version().version}",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(target.secret).sign(message_id, now, body.decode()),
        }
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._http.post(target.url, data=body, headers=headers, allow_redirects=False)
        except TimeoutError:
            return Attempt(Outcome.FAILED, f"no response within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Attempt(Outcome.FAILED, f"not sent: {_reason(error)}")
        try:
            outcome = outcome_of_status(response.status)
            await _drain(response)
        finally:
            response.close()
        if outcome is Outcome.DELIVERED:
            return Attempt(outcome)
        redirect = "; redirects are not followed" if 300 <= response.status < 400 else ""
        return Attempt(outcome, f"the receiver responded {response.status}{redirect}")


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read a short body, so that the connection can be reused. `close` ends the connection of a longer one."""
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    return
    except (aiohttp.ClientError, OSError, TimeoutError):
        return


def _reason(error: Exception) -> str:
    # The text of this one is that of `_checked_socket`.
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno == errno.EACCES:
        return error_reason(error.os_error)
    return request_error_reason(error)[:300]


def event_message(event: FeedEvent) -> tuple[str, bytes]:
    """Return the id and the body of an event's message. Both are the same each time that the event is sent."""
    data = codec.to_builtins(event)
    del data["type"], data["time"]
    at = datetime.datetime.fromtimestamp(event.time.ms / 1000, datetime.UTC)
    timestamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"evt_{event.id}", codec.encode({"type": event.type, "timestamp": timestamp, "data": data})


def test_message(call_id: int) -> tuple[str, bytes]:
    """Return the id and the body of a test message. ``call_id``: the event of the call that wants it."""
    timestamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"test_{call_id}", codec.encode({"type": "webhook.test", "timestamp": timestamp, "data": {"id": call_id}})


@asynccontextmanager
async def open_sender(
    allowed: Sequence[Network], *, timeout_s: float = RESPONSE_TIMEOUT_S, resolver: AbstractResolver | None = None
) -> AsyncIterator[WebhookSender]:
    """Open a session for messages, and close its connections when the block ends.

    Args:
        allowed: networks that may be reached although they are not public.
        timeout_s: for a response's head.
        resolver: of names; None: the system's.
    """
    connector = aiohttp.TCPConnector(
        limit=0,
        limit_per_host=CONNECTIONS_PER_HOST,
        keepalive_timeout=KEEP_ALIVE_S,
        use_dns_cache=False,
        resolver=resolver,
        socket_factory=partial(_checked_socket, allowed),
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(),
        auto_decompress=False,
        trust_env=False,
    ) as http:
        yield WebhookSender(http, timeout_s)


def _checked_socket(allowed: Sequence[Network], address: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an address of `getaddrinfo`, which is the one that it will be connected to.

    Raises:
        OSError: the address must not be reached.
    """
    family, kind, protocol, _, place = address
    if (reason := address_refusal(str(place[0]), allowed)) is not None:
        raise OSError(errno.EACCES, reason)
    return socket.socket(family, kind, protocol)
