"""Keeps the output of a drone's backends, while they run and for an hour after, in a folder each.

`logs.files` stores it, `output_capture` is where processes write it. The runtimes own a keeper and run it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

from plane import timing
from plane.protocol.errors import PlaneError
from plane.protocol.logs import LogPage
from plane.runtime.logs.files import LogFiles
from plane.runtime.logs.output_capture import READ_BYTES, OutputCapture
from plane.throttled_log import ThrottledWarning

__all__ = ["DEFAULT_LIMIT_BYTES", "LogCollector", "LogsNotRetained", "LogsUnavailable"]

# Of one backend's output.
DEFAULT_LIMIT_BYTES = 10 * 1024 * 1024
# How often is looked for new output; a burst is read without such pauses, but never without any.
LOOK_INTERVAL_S = 0.25
BUSY_INTERVAL_S = 0.02
# What of the output goes into a message to people.
SHOWN_BYTES = 2_000
# After the exit, so much is read at once, and no more: a descendant may go on writing.
LAST_READS = 2 * DEFAULT_LIMIT_BYTES // READ_BYTES

log = structlog.get_logger("plane.runtime")


class LogsUnavailable(PlaneError):
    """There is no output to read; the text says why."""


class LogsNotRetained(LogsUnavailable):
    """The backend has not begun here, or ended long ago."""


class LogCollector:
    """The output of one drone's backends.

    Args:
        folder: where to keep it, one folder per backend; None: in a temporary folder, which `close` removes.
        limit_bytes: of one backend's output, and of what it has written that has not been read yet.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._temporary = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="plane-drone-"))
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._limit_bytes = limit_bytes
        self._spools: dict[str, OutputCapture] = {}
        self._files: dict[str, LogFiles] = {}
        self._unreadable = ThrottledWarning(log, "output of a backend cannot be read")

    def folders(self) -> Iterator[tuple[Path, float]]:
        """Yield the folders of all backends of which something is kept, and how many seconds ago each changed last."""
        try:
            found = list(self._folder.iterdir())
        except OSError as error:
            log.warning("folder of backends cannot be read", folder=str(self._folder), error=str(error))
            return
        for folder in found:
            with contextlib.suppress(OSError):
                yield folder, time.time() - folder.stat().st_mtime

    def folder_path(self, backend_id: str) -> Path:
        """The backend's folder, which need not be there."""
        return self._folder / backend_id

    def ensure_folder(self, backend_id: str) -> Path:
        """The backend's folder, which is made if it is not there."""
        folder = self.folder_path(backend_id)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def capture_file(self, backend_id: str) -> Path:
        """Where the backend's process writes its output."""
        return self.ensure_folder(backend_id) / "spool"

    def follow(self, backend_id: str) -> None:
        """Begin to take what the process writes to its spool."""
        self._spools[backend_id] = OutputCapture(self.capture_file(backend_id), self._limit_bytes)

    def finish(self, backend_id: str) -> str:
        """Take the last output of a process that has ended; returns the end of it."""
        if spool := self._spools.pop(backend_id, None):
            try:
                for _ in range(LAST_READS):
                    if not spool.has_more:
                        break
                    self._store(backend_id, spool.read())
                self._store(backend_id, spool.read(to_the_end=True))
                self.capture_file(backend_id).unlink(missing_ok=True)
            except OSError as error:
                self._unreadable.warn(backend=backend_id, error=str(error))
            finally:
                spool.close()
        return self.ended(backend_id)

    def ended(self, backend_id: str) -> str:
        """Return the end of the output of a backend that has ended, and whose output is stored.

        A disk that fails must not keep anybody from being told of the end; then this is empty.
        """
        try:
            text = self._files_of(backend_id).last_text(SHOWN_BYTES)
            os.utime(self.ensure_folder(backend_id))
        except OSError as error:
            self._unreadable.warn(backend=backend_id, error=str(error))
            text = ""
        self._files.pop(backend_id, None)
        return text

    def append(self, backend_id: str, lines: Iterable[bytes], times_ns: Iterable[int]) -> None:
        """Store output that was read elsewhere, with its times."""
        self._store(backend_id, lines, times_ns)

    def _store(self, backend_id: str, lines: Iterable[bytes], times_ns: Iterable[int] | None = None) -> None:
        try:
            self._files_of(backend_id).append(lines, times_ns)
        except OSError as error:
            log.warning("output not stored", backend=backend_id, error=str(error))

    def _files_of(self, backend_id: str) -> LogFiles:
        files = self._files.get(backend_id)
        if files is None:
            files = self._files[backend_id] = LogFiles(self.ensure_folder(backend_id), self._limit_bytes)
        return files

    async def read(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """See `plane.runtime.base.Runtime.read_logs`."""
        folder = self._folder / backend_id
        # An id comes from elsewhere, and may be no name.
        if folder.parent != self._folder or backend_id == ".." or not folder.is_dir():
            raise LogsNotRetained(
                f"no output of {backend_id} is kept: it never ran here, or ended more than an hour ago"
            )
        files = self._files.get(backend_id) or LogFiles(folder, self._limit_bytes)
        end = asyncio.get_running_loop().time() + wait_s
        while True:
            # Asked first: what is written before the end is in the files when this says that it has ended.
            ended = backend_id not in self._spools
            lines = files.read(after, tail)
            if lines or ended or asyncio.get_running_loop().time() >= end:
                return LogPage(lines, ended=ended and not (lines and files.read(lines[-1].time_ns, None)))
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def run(self) -> None:
        """Take what is written, and forget what is old; until cancelled."""
        next_look = 0.0
        while True:
            busy = False
            for backend_id in list(self._spools):
                more = self._take(backend_id)
                if more is not None:
                    busy = busy or more
                    # Between two backends that write much, everything else has its turn.
                    await asyncio.sleep(0)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + timing.ENDED_CLEANUP_INTERVAL_S
                self._forget_old()
            await asyncio.sleep(BUSY_INTERVAL_S if busy else LOOK_INTERVAL_S)

    def _take(self, backend_id: str) -> bool | None:
        """Store a part of what a backend has written; returns whether there is more, None if there was nothing."""
        # It may have ended while others had their turn.
        spool = self._spools.get(backend_id)
        try:
            if spool is None or not spool.has_more:
                return None
            self._store(backend_id, spool.read())
            return spool.has_more
        except OSError as error:
            self._unreadable.warn(backend=backend_id, error=str(error))
            return None

    def _forget_old(self) -> None:
        for folder, changed_s_ago in self.folders():
            if (
                changed_s_ago > timing.ENDED_RETENTION_S
                and folder.name not in self._files
                and folder.name not in self._spools
            ):
                with contextlib.suppress(OSError):
                    shutil.rmtree(folder)

    def close(self) -> None:
        """Stop reading; what is on disk stays there, unless it is temporary."""
        for spool in self._spools.values():
            spool.close()
        self._spools.clear()
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)
