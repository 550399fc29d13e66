"""Start and stop an external executor: a runtime behind a Unix socket, for a drone with ``--executor-socket``."""

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

# The drone label of its containers; the cluster label is the path of the socket.
OWNER_NAME = "executor"
ORPHANS_RETRY_INTERVAL_S = 1.0

log = structlog.get_logger("plane.executor")


class ExecutorServer:
    """A running executor."""

    def __init__(self, tasks: list[asyncio.Task[None]]) -> None:
        self._tasks = tasks

    async def wait(self) -> None:
        """Wait until a part of the executor fails, and raise its error. Never returns normally."""
        await until_one_ends(self._tasks)


@asynccontextmanager
async def start_executor(settings: ExecutorSettings) -> AsyncIterator[ExecutorServer]:
    """Run an executor for the duration of the block. Afterwards its backends are killed.

    Raises:
        ConfigurationError: the socket or the runtime cannot be used; the message says why.
    """
    watchdog = WatchdogSupervisor(ends_with_drone=True, output_limit_bytes=settings.log_limit_bytes)
    runtime = await create_runtime(settings, Owner(OWNER_NAME, str(settings.socket.resolve())))
    handler = RequestHandler(runtime, watchdog)
    lines = LineServer(handler.handle)
    listener = RuntimeListener(
        lambda *exited: lines.send_event(handler.exit_event(*exited)),
        lambda metrics: lines.send_event(handler.metrics_event(metrics)),
        watchdog.locate,
    )
    await runtime.start(listener)
    try:
        try:
            server = await serve_lines(settings.socket, lines)
        except OSError as error:
            raise ConfigurationError(f"--socket: cannot listen at {settings.socket}: {error_reason(error)}") from error
        tasks = [
            asyncio.create_task(runtime.run(), name="runtime"),
            asyncio.create_task(server.serve_forever(), name="socket"),
            asyncio.create_task(watchdog.run(), name="watchdog"),
            asyncio.create_task(_remove_orphans(handler), name="orphans"),
        ]
        log.info("executor listening", path=str(settings.socket), runtime=runtime.name)
        try:
            yield ExecutorServer(tasks)
        finally:
            await end_tasks(tasks)
            settings.socket.unlink(missing_ok=True)
    finally:
        await runtime.close(leave_running=False)


async def _remove_orphans(handler: RequestHandler) -> None:
    """Remove the backends of the former executor of this socket, retrying until that is certain.

    Called once the socket is bound: before that, the former executor may still run.
    """
    while True:
        try:
            await handler.remove_orphans()
            break
        except BackendFailed as error:
            log.warning("orphaned backends not listed; retrying", error=str(error))
        await asyncio.sleep(ORPHANS_RETRY_INTERVAL_S)
    await asyncio.Event().wait()
