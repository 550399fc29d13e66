"""Collect the output of a drone's backends while they run, and retain it for an hour after their end.

Each backend has a folder. Processes write to an `output_capture` in it, from which the collector moves lines to
`logs.files`. The runtimes own a collector and run it. Files are read and written by the collector's `DiskThread` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import structlog

from plane import timing
from plane.protocol.errors import PlaneError
from plane.protocol.logs import LogPage
from plane.runtime.logs.disk_thread import DiskThread
from plane.runtime.logs.files import LogFiles
from plane.runtime.logs.output_capture import READ_BYTES, OutputCapture
from plane.throttled_log import ThrottledWarning

__all__ = ["DEFAULT_LIMIT_BYTES", "LogCollector", "LogsNotRetained", "LogsUnavailable"]

# Of one backend's output.
DEFAULT_LIMIT_BYTES = 10 * 1024 * 1024
# How often captures are read. A burst is read without long pauses, but never without any.
POLL_INTERVAL_S = 0.25
BUSY_POLL_INTERVAL_S = 0.02
# How much of the output is part of a message to people.
MESSAGE_OUTPUT_BYTES = 2_000
# How much is read after the exit at most: a descendant may continue to write.
FINAL_READS = 2 * DEFAULT_LIMIT_BYTES // READ_BYTES
# Requests for output that wait for the disk. Each is executed, even if nobody waits for its result any more.
MAX_WAITING_READS = 1000
DISK_HANGS = "the disk of the drone does not respond"

log = structlog.get_logger("plane.runtime")


class LogsUnavailable(PlaneError):
    """The output of a backend cannot be read; the message says why."""


class LogsNotRetained(LogsUnavailable):
    """The backend never ran here, or its output has been deleted."""


class LogCollector:
    """The output of one drone's backends.

    Args:
        folder: where the folders of the backends are; None: a temporary folder, which `close` removes.
        limit_bytes: of one backend's stored output, and of its unread output.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._temporary = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="plane-drone-"))
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._limit_bytes = limit_bytes
        self._disk = DiskThread()
        self._captures: dict[str, OutputCapture] = {}
        self._files: dict[str, LogFiles] = {}
        self._unreadable = ThrottledWarning(log, "backend output not readable")

    def folders(self) -> Iterator[tuple[Path, float]]:
        """Yield the folder of each backend that has one, and how many seconds ago it changed last."""
        try:
            found = list(self._folder.iterdir())
        except OSError as error:
            log.warning("folder of backends not readable", folder=str(self._folder), error=str(error))
            return
        for folder in found:
            with contextlib.suppress(OSError):
                yield folder, time.time() - folder.stat().st_mtime

    def folder_path(self, backend_id: str) -> Path:
        """Return the path of the backend's folder, which need not exist."""
        return self._folder / backend_id

    def ensure_folder(self, backend_id: str) -> Path:
        """Return the backend's folder, which is created if it is missing."""
        folder = self.folder_path(backend_id)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def capture_file(self, backend_id: str) -> Path:
        """Return the file that the backend's process appends its output to."""
        return self.ensure_folder(backend_id) / "spool"

    def follow(self, backend_id: str) -> None:
        """Begin to collect the output of a process."""
        self._captures[backend_id] = OutputCapture(self.capture_file(backend_id), self._limit_bytes)

    async def finish(self, backend_id: str) -> str:
        """Collect the remaining output of a process that has ended. Return the end of its output.

        Return an empty text if the disk fails or hangs: that must not prevent the report of the exit.
        """
        return await self._end_of_output(backend_id, partial(self._finish, backend_id))

    async def store(self, backend_id: str, lines: Iterable[bytes], times_ns: Iterable[int]) -> str:
        """Store output that was collected elsewhere, with its times. Return its end, as `finish` does."""

        def store() -> str:
            self._store(backend_id, lines, times_ns)
            return self._last_output(backend_id)

        return await self._end_of_output(backend_id, store)

    async def _end_of_output(self, backend_id: str, operation: Callable[[], str]) -> str:
        try:
            return await self._disk.run_in_time(operation)
        except TimeoutError:
            self._unreadable.warn(backend=backend_id, error="the disk does not respond")
            return ""

    def _finish(self, backend_id: str) -> str:
        if capture := self._captures.pop(backend_id, None):
            try:
                for _ in range(FINAL_READS):
                    if not capture.has_more:
                        break
                    self._store(backend_id, capture.read())
                self._store(backend_id, capture.read(to_the_end=True))
                self.capture_file(backend_id).unlink(missing_ok=True)
            except OSError as error:
                self._unreadable.warn(backend=backend_id, error=str(error))
            finally:
                capture.close()
        return self._last_output(backend_id)

    def _last_output(self, backend_id: str) -> str:
        try:
            text = self._files_of(backend_id).last_text(MESSAGE_OUTPUT_BYTES)
            os.utime(self.ensure_folder(backend_id))
        except OSError as error:
            self._unreadable.warn(backend=backend_id, error=str(error))
            text = ""
        self._files.pop(backend_id, None)
        return text

    def _store(self, backend_id: str, lines: Iterable[bytes], times_ns: Iterable[int] | None = None) -> None:
        try:
            self._files_of(backend_id).append(lines, times_ns)
        except OSError as error:
            log.warning("backend output not stored", backend=backend_id, error=str(error))

    def _files_of(self, backend_id: str) -> LogFiles:
        files = self._files.get(backend_id)
        if files is None:
            files = self._files[backend_id] = LogFiles(self.ensure_folder(backend_id), self._limit_bytes)
        return files

    async def read(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """Return a page of output; see `plane.runtime.base.Runtime.read_logs`."""
        folder = self._folder / backend_id
        # The id comes from a request and may be no valid name.
        is_name = folder.parent == self._folder and backend_id != ".."
        end = asyncio.get_running_loop().time() + wait_s
        while True:
            if self._disk.waiting >= MAX_WAITING_READS:
                raise LogsUnavailable(DISK_HANGS)
            try:
                page = (
                    await self._disk.run_in_time(partial(self._page, backend_id, folder, after, tail))
                    if is_name
                    else None
                )
            except TimeoutError:
                raise LogsUnavailable(DISK_HANGS) from None
            if page is None:
                raise LogsNotRetained(
                    f"no output of {backend_id} is retained: it never ran here, or ended more than an hour ago"
                )
            if page.lines or page.ended or asyncio.get_running_loop().time() >= end:
                return page
            await asyncio.sleep(POLL_INTERVAL_S)

    def _page(self, backend_id: str, folder: Path, after: int | None, tail: int | None) -> LogPage | None:
        """Return the output that there is now, or None without a folder."""
        if not folder.is_dir():
            return None
        # All output is in the files once the capture is finished.
        ended = backend_id not in self._captures
        # What the process wrote before this moment is included, whenever `run` read last.
        self._collect(backend_id)
        files = self._files.get(backend_id) or LogFiles(folder, self._limit_bytes)
        lines = files.read(after, tail)
        return LogPage(lines, ended=ended and not (lines and files.read(lines[-1].time_ns, None)))

    async def run(self) -> None:
        """Collect output and delete expired folders until cancelled."""
        next_expiry = 0.0
        while True:
            busy = False
            to_read: Sequence[str] = list(self._captures)
            while to_read:
                # An operation ends with a backend that wrote something: others are executed before the next one.
                has_more, to_read = await self._disk.run(partial(self._collect_next, to_read))
                busy = busy or has_more
            if time.monotonic() >= next_expiry:
                next_expiry = time.monotonic() + timing.ENDED_CLEANUP_INTERVAL_S
                await self._disk.run(self._delete_expired)
            await asyncio.sleep(BUSY_POLL_INTERVAL_S if busy else POLL_INTERVAL_S)

    def _collect_next(self, backend_ids: Sequence[str]) -> tuple[bool, Sequence[str]]:
        """Collect from the first of these that has new output. Return whether it has more, and those after it."""
        for place, backend_id in enumerate(backend_ids):
            has_more = self._collect(backend_id)
            if has_more is not None:
                return has_more, backend_ids[place + 1 :]
        return False, ()

    def _collect(self, backend_id: str) -> bool | None:
        """Store a part of a backend's new output. Return whether there is more, or None if there was nothing."""
        # The backend may have ended meanwhile.
        capture = self._captures.get(backend_id)
        try:
            if capture is None or not capture.has_more:
                return None
            self._store(backend_id, capture.read())
            return capture.has_more
        except OSError as error:
            self._unreadable.warn(backend=backend_id, error=str(error))
            return None

    def _delete_expired(self) -> None:
        for folder, changed_s_ago in self.folders():
            if (
                changed_s_ago > timing.ENDED_RETENTION_S
                and folder.name not in self._files
                and folder.name not in self._captures
            ):
                with contextlib.suppress(OSError):
                    shutil.rmtree(folder)

    def close(self) -> None:
        """Stop reading. Files stay on disk, unless the folder is temporary."""
        # By the thread that reads the captures: the number of a closed descriptor may be another file's a moment later.
        self._disk.close(self._close)

    def _close(self) -> None:
        for capture in self._captures.values():
            capture.close()
        self._captures.clear()
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)
