"""The real program `plane`, as processes: started, watched, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.preloaded import PreloadedProcess

__all__ = ["EXECUTED", "PLANE", "Program", "program"]

# A prefix that only executes the program.
EXECUTED = "env"
PLANE = Path(sys.executable).parent / "plane"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0


class Program:
    """One run of `plane`. Its output is in ``log`` and ``out``.

    ``prefix``: a command that runs it, and becomes it, such as `EXECUTED`. Without one it is a fork of a process that
    has imported it.
    """

    def __init__(self, arguments: list[str], folder: Path, name: str, *prefix: str, **environment: str) -> None:
        self.log = folder / f"{name}.log"
        self.out = folder / f"{name}.out"
        values = {**os.environ, "PLANE_LOG": "info", **environment}
        self.process: subprocess.Popen[bytes] | PreloadedProcess
        if not prefix:
            self.process = PreloadedProcess(PLANE, arguments, values, self.out, self.log, folder=folder)
            return
        with self.log.open("ab") as log, self.out.open("ab") as out:
            self.process = subprocess.Popen(
                [*prefix, PLANE, *arguments], cwd=folder, stdout=out, stderr=log, env=values
            )

    def says(self, text: str, times: int = 1, limit_s: float = START_LIMIT_S) -> None:
        """Wait until the program has said ``text`` so often."""
        end = time.monotonic() + limit_s
        while (self.log.read_text() + self.out.read_text()).count(text) < times:
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"never said {text!r}:\n{self.log.read_text()}{self.out.read_text()}")
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_LIMIT_S)


@contextmanager
def program(arguments: list[str], folder: Path, name: str, *prefix: str, **environment: str) -> Iterator[Program]:
    """A run of `plane` that is over, one way or another, when the block ends; see `Program`."""
    running = Program(arguments, folder, name, *prefix, **environment)
    try:
        yield running
    finally:
        try:
            running.stop()
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()
