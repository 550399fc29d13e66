"""A connection to a Docker engine: each call has a limit, and each failure a text for people.

Used by `docker.runtime` and what belongs to it. The engine may hang, restart or go away at any time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp

from plane.runtime.base import BackendFailed

__all__ = ["CALL_LIMIT_S", "DockerEngine", "EngineRefused", "engine_is_available", "parse_time_ns"]

# Calls other than pulls and stops.
CALL_LIMIT_S = 30.0
# The longest answer that is read whole.
BODY_LIMIT_BYTES = 16 * 1024 * 1024
_FRACTION = re.compile(r"\.\d+")


class EngineRefused(BackendFailed):
    """The engine has answered that it will not; ``status`` is HTTP's."""

    def __init__(self, what: str, status: int, message: str) -> None:
        super().__init__(f"the Docker engine cannot {what}: {message}")
        self.status = status


async def engine_is_available(socket: Path, limit_s: float = CALL_LIMIT_S) -> bool:
    """Whether a Docker engine answers at that Unix socket."""
    if not socket.is_socket():
        return False
    engine = DockerEngine(socket, limit_s)
    try:
        await engine.call("tell its version", "GET", "version")
    except BackendFailed:
        return False
    finally:
        await engine.close()
    return True


class DockerEngine:
    """The engine at one Unix socket. ``limit_s``: how long a call may take that says nothing else."""

    def __init__(self, socket: Path, limit_s: float = CALL_LIMIT_S) -> None:
        self.limit_s = limit_s
        # No limit: every stop that waits and the stream of events hold a connection.
        connector = aiohttp.UnixConnector(path=str(socket), limit=0)
        self.client = aiodocker.Docker(url="http://docker", connector=connector)

    @asynccontextmanager
    async def answer(
        self, what: str, method: str, path: str, limit_s: float | None = None, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask, and give the answer to be read within the block. ``what`` is for errors: "cannot …".

        Raises:
            EngineRefused: it will not.
            BackendFailed: it does not answer, or not in time.
        """
        limit_s = self.limit_s if limit_s is None else limit_s
        try:
            async with (
                asyncio.timeout(limit_s),
                self.client.session.request(method, f"http://docker/{path}", **options) as response,
            ):
                if response.status >= 400:
                    text = await response.text(errors="replace")
                    found = re.search(r'"message":\s*"((?:[^"\\]|\\.)*)"', text)
                    message = found[1].replace('\\"', '"').replace("\\n", " ") if found else text[:500]
                    raise EngineRefused(what, response.status, message.strip())
                yield response
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            # An error of the operating system, ETIMEDOUT, is a TimeoutError too, but has words.
            reason = str(error) or (
                f"no answer in {limit_s:g} s" if isinstance(error, TimeoutError) else type(error).__name__
            )
            raise BackendFailed(f"the Docker engine does not answer when asked to {what}: {reason}") from error

    async def call(self, what: str, method: str, path: str, **options: Any) -> Any:
        """Ask, and return the answer's JSON, None without any; see `answer`."""
        async with self.answer(what, method, path, **options) as response:
            return await response.json(content_type=None) if response.status == 200 else None

    async def inspect(self, container: str) -> dict[str, Any] | None:
        """All about a container; None if there is no such one."""
        try:
            found: dict[str, Any] = await self.call("inspect the container", "GET", f"containers/{container}/json")
        except EngineRefused as error:
            if error.status != 404:
                raise
            return None
        return found

    async def remove(self, container: str, *, force: bool) -> None:
        """Remove a container, with ``force`` even if it runs; it may be gone already."""
        try:
            params = {"force": "true" if force else "false"}
            await self.call("remove the container", "DELETE", f"containers/{container}", params=params)
        except EngineRefused as error:
            # 409: another removal is under way.
            if error.status not in (404, 409):
                raise

    async def close(self) -> None:
        """Hang up."""
        # The client closes its session, but no connector that it was given.
        connector = self.client.session.connector
        await self.client.close()
        if connector is not None:
            await connector.close()


def parse_time_ns(text: str) -> int:
    """Nanoseconds since the epoch of a time as the engine writes it (RFC 3339 with up to nine digits); 0 for none."""
    fraction = _FRACTION.search(text)
    try:
        seconds = datetime.fromisoformat(_FRACTION.sub("", text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0
    nanoseconds = int(fraction[0][1:10].ljust(9, "0")) if fraction else 0
    return max(0, int(seconds)) * 1_000_000_000 + nanoseconds
