"""Runs commands of the installed program that end by themselves, with and without a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from dataclasses import dataclass
from typing import Any

from harness.program import PLANE

__all__ = ["Done", "run", "run_on_terminal"]

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
    done = subprocess.run(
        [PLANE, *arguments],
        input=stdin,
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
