"""The processes that are measured: started, waited for with a limit, and ended."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.load import HttpClient

__all__ = ["PLANE", "BenchFailed", "Server", "programs", "run_benchmark", "serving", "within"]

# The program of this checkout.
PLANE = Path(sys.executable).parent / "plane"

START_LIMIT_S = 60.0
END_LIMIT_S = 30.0
# Of what a process said last, if it ended too soon.
SHOWN_CHARACTERS = 2_000


class BenchFailed(Exception):
    """What is measured did not work; the message says what, and what it said itself."""


def run_benchmark(measure: Callable[[Path], Coroutine[Any, Any, None]]) -> None:
    """Run a benchmark in a new folder that other users may enter; exit with what failed."""
    with tempfile.TemporaryDirectory(prefix="plane-bench-") as folder:
        Path(folder).chmod(0o755)
        try:
            uvloop.run(measure(Path(folder)))
        except BenchFailed as error:
            sys.exit(f"bench: {error}")


def programs() -> dict[str, Path]:
    """Return the ``plane`` of this checkout, and the other one that the command line names, to be measured in turns."""
    return {"this": PLANE} | ({"other": Path(sys.argv[1])} if len(sys.argv) > 1 else {})


@asynccontextmanager
async def within(limit_s: float, what: str) -> AsyncIterator[None]:
    """Do the block's work within ``limit_s``.

    Raises:
        BenchFailed
    """
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as error:
        raise BenchFailed(f"{what}: {str(error) or f'not done within {limit_s:.0f} s'}") from error
    except ConnectionError as error:
        raise BenchFailed(f"{what}: the connection was lost: {error}") from error


@asynccontextmanager
async def _running(command: Sequence[str], log: Path) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A process while the block runs; what it says goes to ``log``."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "PLANE_LOG": "warning"})
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process in good order, or else at once."""
    process.terminate()
    try:
        process.wait(END_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True, slots=True)
class Server:
    """A process that answers HTTP on a port of this machine's loopback interface."""

    pid: int
    port: int


@asynccontextmanager
async def serving(command: Sequence[str], folder: Path, port_option: str = "--port") -> AsyncIterator[Server]:
    """Run an HTTP server as a process, and yield it once it responds on the port that ``port_option`` gives it.

    Its log is in ``folder``.

    Raises:
        BenchFailed: it ended, or does not answer in time. One of the block's own is raised with what the server said.
    """
    port = _free_port()
    log = folder / f"{port}.log"
    name = " ".join(command[:3])
    async with _running([*command, port_option, str(port)], log) as process:
        try:
            async with within(START_LIMIT_S, f"waiting for {name}"):
                while not await _answers(port):
                    if process.poll() is not None:
                        raise BenchFailed("it does not run")
                    await asyncio.sleep(0.05)
            yield Server(process.pid, port)
        except BenchFailed as error:
            if not _ends(process):
                raise
            said = log.read_text(errors="replace")[-SHOWN_CHARACTERS:]
            raise BenchFailed(f"{error}\n{name} has ended with {process.returncode}, and said:\n{said}") from error


def _ends(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended, or does now: its connections are closed a moment before."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    return process.returncode is not None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def _answers(port: int) -> bool:
    """Whether requests are answered: a server may listen before that."""
    with suppress(OSError):
        client = await HttpClient.open("127.0.0.1", port)
        try:
            await client.post("/", b"")
        finally:
            client.close()
        return True
    return False
