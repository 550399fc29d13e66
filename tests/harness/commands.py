"""Runs commands of the installed program that end by themselves, with and without a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.preloaded import PreloadedProcess
from harness.program import PLANE

__all__ = ["Done", "run", "run_executed", "run_on_terminal"]

LIMIT_S = 60.0


@dataclass(frozen=True)
class Done:
    """What a command left."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The last line as JSON."""
        return json.loads(self.out.splitlines()[-1])


def run(*arguments: str, stdin: str = "", **environment: str) -> Done:
    """Run a command without a terminal."""
    with TemporaryDirectory() as folder:
        given, out, err = (Path(folder, name) for name in ("in", "out", "err"))
        given.write_text(stdin)
        values = {**os.environ, **environment}
        process = PreloadedProcess(PLANE, arguments, values, out, err, folder=Path.cwd(), stdin=given)
        try:
            status = process.wait(LIMIT_S)
        finally:
            process.kill()
        return Done(status, out.read_text(), err.read_text())


def run_executed(*arguments: str, **environment: str) -> Done:
    """Run a command as a new program, for tests of what it imports."""
    done = subprocess.run(
        [PLANE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        env={**os.environ, **environment},
    )
    return Done(done.returncode, done.stdout, done.stderr)


def run_on_terminal(*arguments: str, **environment: str) -> Done:
    """Run a command on a terminal of 200 columns; output and errors come together."""
    values = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", **environment}
    ours, its = pty.openpty()
    with subprocess.Popen([PLANE, *arguments], stdin=its, stdout=its, stderr=its, env=values) as process:
        os.close(its)
        heard = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                # How Linux says that nobody has the other end any more.
                break
            if not part:
                break
            heard += part
        os.close(ours)
        return Done(process.wait(LIMIT_S), heard.decode(), "")
