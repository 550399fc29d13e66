"""A child process that may outlive the drone, started by vfork and awaited by a pidfd.

For a backend a supervisor is started (bubblewrap, a shell or a subreaper). It waits for the command and writes the exit
code to a file, so that the code is known even if no drone ran at that time. A process is identified by its id together
with its start time, which no other process has had.

uvloop starts children by fork, which takes 5 ms in a process of this size and blocks the event loop meanwhile. vfork,
which the standard library uses, takes 0.3 ms (measured with ``python -m bench.connect``).
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from plane.protocol import codec
from plane.protocol.errors import MessageError
from plane.runtime.process.procfs import start_time

__all__ = ["ChildProcess", "any_exit", "read_exit_status", "read_port", "write_port"]

# How many processes of one backend are watched; each takes a descriptor.
WATCHED_LIMIT = 32


class ChildProcess:
    """A running process, created by `start` or `adopt`.

    Attributes:
        started_at: see `plane.runtime.process.procfs.start_time`.
    """

    def __init__(self, pid: int, pidfd: int, child: subprocess.Popen[bytes] | None, status_file: Path | None) -> None:
        self.pid = pid
        self.started_at = start_time(pid)
        self._child = child
        self._status_file = status_file
        self._pidfd = pidfd
        self._ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(pidfd, self._on_exit)

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        output: int,
        inherited: Sequence[int],
        cwd: str,
        stdin: int = subprocess.DEVNULL,
    ) -> ChildProcess:
        """Start ``command`` in a session of its own.

        Args:
            output: descriptor for stdout and stderr.
            inherited: other descriptors that it inherits, under the same numbers.
            stdin: descriptor; by default there is no input.

        Raises:
            OSError, ValueError: the process cannot be started.
        """
        # Not in a thread: this takes a fraction of a millisecond, and the kernel sends a parent-death signal when the
        # thread that started the child ends.
        child = subprocess.Popen(  # noqa: S603
            command,
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=inherited,
        )
        return cls(child.pid, os.pidfd_open(child.pid), child, None)

    @classmethod
    def adopt(cls, pid: int, started_at: int, status_file: Path | None) -> ChildProcess | None:
        """Return the process with this id and start time; None if it does not run.

        Args:
            status_file: where it writes the exit code of its command; None: the exit code is not needed.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError):
            return None
        # Checked after the pidfd is open: from then on the descriptor means this process.
        if start_time(pid) != started_at:
            os.close(pidfd)
            return None
        return cls(pid, pidfd, None, status_file)

    async def wait(self) -> int | None:
        """Return the exit status once the process has ended; -n for signal n; None if it is unknown."""
        return await asyncio.shield(self._ended)

    def detach(self) -> None:
        """Stop waiting for the process, which continues to run."""
        if not self._ended.done():
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._ended.cancel()
            if self._child is not None:
                # Prevents the warning of `subprocess` about a child that was not waited for.
                self._child.returncode = 0

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process, never another one that may have its id by now."""
        if not self._ended.done():
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._child is not None:
            self._ended.set_result(self._child.wait())
        else:
            self._ended.set_result(None if self._status_file is None else read_exit_status(self._status_file))


@contextmanager
def any_exit(pids: Collection[int]) -> Iterator[asyncio.Event]:
    """Yield an event that is set whenever one of these processes ends. Only the first `WATCHED_LIMIT` are watched."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    pidfds: set[int] = set()

    def ended(pidfd: int) -> None:
        event.set()
        loop.remove_reader(pidfd)
        pidfds.discard(pidfd)
        os.close(pidfd)

    try:
        for pid in islice(pids, WATCHED_LIMIT):
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                event.set()
                continue
            pidfds.add(pidfd)
            loop.add_reader(pidfd, ended, pidfd)
        yield event
    finally:
        for pidfd in pidfds:
            loop.remove_reader(pidfd)
            os.close(pidfd)


def read_exit_status(file: Path) -> int | None:
    """Return the exit code that a supervisor wrote to its status file; None if it wrote none."""
    return _last_number(file, "exit-code")


def write_port(status: int, port: int) -> None:
    """Write the backend's port to its status file, before its supervisor writes to it."""
    os.write(status, codec.encode({"port": port}) + b"\n")


def read_port(file: Path) -> int | None:
    """Return the port that `write_port` wrote; None if there is none."""
    return _last_number(file, "port")


def _last_number(file: Path, name: str) -> int | None:
    try:
        lines = file.read_bytes().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            number = codec.decode(line, dict).get(name)
        except MessageError:
            continue
        if isinstance(number, int):
            return number
    return None
