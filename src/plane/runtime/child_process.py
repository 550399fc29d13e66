"""A child process, started by vfork and waited for by a pidfd.

uvloop starts children by fork, which takes 5 ms in a process of this size and blocks the loop as long; vfork, which
the standard library uses, takes 0.3 ms (measured with ``python -m bench.connect``).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence

__all__ = ["ChildProcess"]


class ChildProcess:
    """A running child; ``output`` is its stdout and stderr. `start` makes one."""

    def __init__(self, process: subprocess.Popen[bytes], output: asyncio.StreamReader) -> None:
        self.pid = process.pid
        self.output = output
        self._process = process
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._end)

    @classmethod
    async def start(cls, command: Sequence[str], *, cwd: str, env: Mapping[str, str]) -> ChildProcess:
        """Start ``command`` in a session of its own, without input.

        Raises:
            OSError, ValueError: it cannot be started.
        """
        # Takes a fraction of a millisecond; a thread would cost more, and its end would end the child
        # (a parent-death signal is sent when the thread that started the child ends).
        process = subprocess.Popen(  # noqa: S603, ASYNC220
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        output = asyncio.StreamReader()
        child = cls(process, output)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(output), process.stdout)
        return child

    async def wait(self) -> int:
        """The exit status, once it has ended; -n for signal n."""
        return await asyncio.shield(self._ended)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended.set_result(self._process.wait())
