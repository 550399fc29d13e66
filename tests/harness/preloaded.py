"""Runs `plane` without its imports: as a fork of a process that has made them.

A start of the program costs more processor time than most of what is tested with it, and nearly all of that are
imports. So a server of the standard library (`multiprocessing.forkserver`), one for each worker of a run, imports the
program once and forks. Such a process differs from an executed one in its command line, in the environment that
/proc shows, and in what is imported: tests of these execute the program (`harness.program.EXECUTED`).
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["PreloadedProcess"]

_COMMANDS = ("controller", "dev", "dns", "doctor", "drone", "executor", "logs", "migrate", "proxy", "run_config")
_ADMIN = ("backends", "connect", "drain", "events", "logs", "put_dummy_dns", "revoke", "states", "terminate", "webhook")
_DB = ("cleanup", "events", "lists", "mark_backend_lost", "prevent_renew")
_MODULES = [
    *(f"plane.cli.{name}" for name in _COMMANDS),
    *(f"plane.cli.admin.{name}" for name in _ADMIN),
    *(f"plane.cli.db.{name}" for name in _DB),
    *(f"plane.{role}.server" for role in ("controller", "dns", "drone", "executor", "proxy")),
    *("plane.client.async_client", "plane.database.inspection", "rich.console", "rich.table"),
    *("plane.dev.cluster", "plane.runtime.docker.runtime", "plane.runtime.process.runtime"),
]
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(_MODULES)


@atexit.register
def _kill_forks() -> None:
    """Kill what a test has left, before `multiprocessing` waits for it at the end of the worker."""
    for process in multiprocessing.active_children():
        process.kill()


class PreloadedProcess:
    """A run of the program ``path``, with the methods of `subprocess.Popen` that tests use.

    ``output`` and ``errors`` are appended to; ``stdin`` is a file to read from.
    """

    def __init__(
        self,
        path: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: Path,
        errors: Path,
        *,
        folder: Path,
        stdin: Path = Path(os.devnull),
    ) -> None:
        for file in (output, errors):
            file.touch()
        files = (str(stdin), str(output), str(errors))
        self.args = [str(path), *arguments]
        self._process = _forks.Process(target=_run, args=(self.args, dict(environment), str(folder), files))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _run(command: list[str], environment: dict[str, str], folder: str, files: tuple[str, str, str]) -> None:
    """Become the program, in the forked process."""
    for number, (file, flags) in enumerate(zip(files, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY), strict=True)):
        opened = os.open(file, flags | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as at the start of the interpreter
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = command
    sys.orig_argv = [sys.executable, *command]
    gc.freeze()
    from plane.cli.main import main

    try:
        main()
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()
