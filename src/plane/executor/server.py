"""Starts and stops an external executor: a runtime behind a Unix socket, for a drone with ``--executor-socket``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from plane.drone.runtime_choice import Owner, create_runtime
from plane.drone.watchdog.supervisor import WatchdogSupervisor
from plane.executor.request_handler import RequestHandler
from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError
from plane.runtime.base import BackendFailed, RuntimeListener
from plane.settings import ExecutorSettings
from plane.tasks import end_tasks, until_one_ends
from plane.transport.json_lines import LineServer, serve_lines

__all__ = ["ExecutorServer", "start_executor"]

# Its containers are labelled as those of a drone of this name; the cluster in the label is the socket's path.
EXECUTOR = "executor"
ORPHANS_RETRY_S = 1.0

log = structlog.get_logger("plane.executor")


class ExecutorServer:
    """An executor that runs."""

    def __init__(self, tasks: list[asyncio.Task[None]]) -> None:
        self._tasks = tasks

    async def wait(self) -> None:
        """Never returns; raises when a part died."""
        await until_one_ends(self._tasks)


@asynccontextmanager
async def start_executor(settings: ExecutorSettings) -> AsyncIterator[ExecutorServer]:
    """An executor that listens while the block runs; at its end its backends are ended.

    Raises:
        ConfigurationError: the socket or the runtime cannot be used; says why.
    """
    watchdog = WatchdogSupervisor(ends_with_drone=True, output_limit_bytes=settings.log_limit_bytes)
    executor = RequestHandler(watchdog)
    lines = LineServer(executor.answer)
    listener = RuntimeListener(
        lambda *exited: lines.send_event(executor.ended(*exited)),
        lambda metrics: lines.send_event(executor.measured(metrics)),
        watchdog.locate,
    )
    owner = Owner(EXECUTOR, str(settings.socket.resolve()))
    runtime = executor.runtime = await create_runtime(settings, owner, listener)
    try:
        try:
            server = await serve_lines(settings.socket, lines)
        except OSError as error:
            raise ConfigurationError(f"--socket: cannot listen at {settings.socket}: {error_reason(error)}") from error
        tasks = [
            asyncio.create_task(runtime.run(), name="runtime"),
            asyncio.create_task(server.serve_forever(), name="socket"),
            asyncio.create_task(watchdog.run(), name="watchdog"),
            asyncio.create_task(_end_orphans(executor), name="orphans"),
        ]
        log.info("executor listens", path=str(settings.socket), runtime=runtime.name)
        try:
            yield ExecutorServer(tasks)
        finally:
            await end_tasks(tasks)
            settings.socket.unlink(missing_ok=True)
    finally:
        await runtime.close(leave_running=False)


async def _end_orphans(executor: RequestHandler) -> None:
    """End what a former executor of the socket left, however often that takes; only now, since the socket is ours."""
    while True:
        try:
            await executor.remove_orphans()
            break
        except BackendFailed as error:
            log.warning("cannot look for a former executor's backends; trying again", error=str(error))
        await asyncio.sleep(ORPHANS_RETRY_S)
    await asyncio.Event().wait()
