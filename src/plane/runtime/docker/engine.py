"""HTTP client of a Docker engine: each call has a timeout, and each failure a message for people.

Used by `docker.runtime` and its parts. The engine may hang, restart or disappear at any time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from plane.runtime.base import BackendFailed

__all__ = ["CALL_TIMEOUT_S", "DockerEngine", "EngineRefused", "engine_is_available", "parse_time_ns"]

# Of all calls but pulls and stops.
CALL_TIMEOUT_S = 30.0
_FRACTION = re.compile(r"\.\d+")


class EngineRefused(BackendFailed):
    """The engine responded with an error.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, operation: str, status: int, message: str) -> None:
        super().__init__(f"the Docker engine cannot {operation}: {message}")
        self.status = status


async def engine_is_available(socket: Path, timeout_s: float = CALL_TIMEOUT_S) -> bool:
    """Return whether a Docker engine responds at the Unix socket."""
    if not socket.is_socket():
        return False
    engine = DockerEngine(socket, timeout_s)
    try:
        await engine.call("report its version", "GET", "version")
    except BackendFailed:
        return False
    finally:
        await engine.close()
    return True


class DockerEngine:
    """The engine at one Unix socket.

    Attributes:
        timeout_s: the timeout of calls that set none.
    """

    def __init__(self, socket: Path, timeout_s: float = CALL_TIMEOUT_S) -> None:
        # Imported here, so that a drone without an engine starts sooner.
        import aiodocker

        self.timeout_s = timeout_s
        # No limit of connections: each pending stop holds one, and so does the event stream.
        connector = aiohttp.UnixConnector(path=str(socket), limit=0)
        self.client = aiodocker.Docker(url="http://docker", connector=connector)

    @asynccontextmanager
    async def request(
        self, operation: str, method: str, path: str, timeout_s: float | None = None, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield the response, which is read within the block.

        Args:
            operation: completes "the Docker engine cannot …" in error messages.
            timeout_s: covers the request and the whole block.

        Raises:
            EngineRefused: the response is an error.
            BackendFailed: no response, or not in time.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        try:
            async with (
                asyncio.timeout(timeout_s),
                self.client.session.request(method, f"http://docker/{path}", **options) as response,
            ):
                if response.status >= 400:
                    text = await response.text(errors="replace")
                    found = re.search(r'"message":\s*"((?:[^"\\]|\\.)*)"', text)
                    message = found[1].replace('\\"', '"').replace("\\n", " ") if found else text[:500]
                    raise EngineRefused(operation, response.status, message.strip())
                yield response
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            # ETIMEDOUT of the operating system is a TimeoutError too, but has a text.
            reason = str(error) or (
                f"no response in {timeout_s:g} s" if isinstance(error, TimeoutError) else type(error).__name__
            )
            raise BackendFailed(
                f"no response from the Docker engine to the request to {operation}: {reason}"
            ) from error

    async def call(self, operation: str, method: str, path: str, **options: Any) -> Any:
        """Send a request and return the JSON of the response, None if it has no content; see `request`."""
        async with self.request(operation, method, path, **options) as response:
            return await response.json(content_type=None) if response.status == 200 else None

    async def inspect(self, container: str) -> dict[str, Any] | None:
        """Return the engine's description of a container; None if there is no such container."""
        try:
            found: dict[str, Any] = await self.call("inspect the container", "GET", f"containers/{container}/json")
        except EngineRefused as error:
            if error.status != 404:
                raise
            return None
        return found

    async def remove(self, container: str, *, force: bool) -> None:
        """Remove a container, with ``force`` even if it runs. A container that does not exist is not an error."""
        try:
            params = {"force": "true" if force else "false"}
            await self.call("remove the container", "DELETE", f"containers/{container}", params=params)
        except EngineRefused as error:
            # 409: another removal is in progress.
            if error.status not in (404, 409):
                raise

    async def close(self) -> None:
        """Close all connections."""
        # The client closes its session, but not a connector that was passed to it.
        connector = self.client.session.connector
        await self.client.close()
        if connector is not None:
            await connector.close()


def parse_time_ns(text: str) -> int:
    """Return a time of the engine (RFC 3339 with up to nine fractional digits) in nanoseconds since the epoch.

    Return 0 if the text is not a time.
    """
    fraction = _FRACTION.search(text)
    try:
        seconds = datetime.fromisoformat(_FRACTION.sub("", text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0
    nanoseconds = int(fraction[0][1:10].ljust(9, "0")) if fraction else 0
    return max(0, int(seconds)) * 1_000_000_000 + nanoseconds
