"""How long programs and commands take to start: ``python -m bench.startup [PROGRAM]``.

With PROGRAM, the ``plane`` of another checkout, both versions take turns. Each row is the shortest of several runs:
what the start itself takes, without what else the machine does.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from bench.controller_load import CLUSTER, row
from bench.processes import PLANE, BenchFailed, programs, run_benchmark, serving
from plane.database.embedded.server import embedded_postgres

RUNS = int(os.environ.get("BENCH_ROUNDS", "7"))
LIMIT_S = 30.0
# What a component logs once it serves.
SERVES = {
    "controller": "controller listening",
    "proxy": "connected to controller",
    "drone": "connected to controller",
    "dns": "connected to controller",
}


def _command_ms(*command: str) -> float:
    """Return how long a command takes."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def _component_ms(text: str, *command: str) -> float:
    """Return how long it takes until a component logs ``text``; then end it."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if text in line:
                    return (time.perf_counter() - start) * 1000
                if time.perf_counter() - start > LIMIT_S:
                    break
            raise BenchFailed(f"{' '.join(command[:2])} did not log {text!r}")
        finally:
            process.terminate()
            process.stdout.read()


def _fastest(works: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Return the shortest time of each, taken in turns."""
    rounds = [[work() for work in works.values()] for _ in range(RUNS)]
    return {name: min(times) for name, times in zip(works, zip(*rounds, strict=True), strict=True)}


def _request_ms(base: str) -> float:
    start = time.perf_counter()
    urllib.request.urlopen(f"{base}/ctrl/backends").read()
    return (time.perf_counter() - start) * 1000


def _rows(base: str, url: str, folder: Path) -> None:
    commands = {
        "plane version": (["version"], "120 ms", "60"),
        "plane admin --help": (["admin", "--help"], "300 ms", "150"),
        "plane completion bash": (["completion", "bash"], "300 ms", "150"),
        "plane admin list, above its request": (["admin", "list", "--controller", base], "300 ms", "150"),
    }
    for name, (arguments, must, aim) in commands.items():
        works: dict[str, Callable[[], float]] = {
            version: partial(_command_ms, str(program), *arguments) for version, program in programs().items()
        }
        found = _fastest({**works, "request": partial(_request_ms, base)})
        request = found.pop("request")
        above = request if "request" in name else 0.0
        row(name, ", ".join(f"{version} {ms - above:.0f} ms" for version, ms in found.items()), must=must, aim=aim)
    store = ["--db", str(folder / "drone.sqlite"), "--name", "dr-bench"]
    components = {
        "controller": ["controller", "--db", url, "--port", "0"],
        "proxy": ["proxy", "--controller-url", base, "--cluster", CLUSTER, "--http-port", "0"],
        "drone": ["drone", "--controller-url", base, "--cluster", CLUSTER, "--runtime", "process", *store],
        "dns": ["dns", "--controller-url", base, "--zone", "acme.bench.example", "--port", "0"],
    }
    for name, arguments in components.items():
        found = _fastest(
            {
                version: partial(_component_ms, SERVES[name], str(program), *arguments)
                for version, program in programs().items()
            }
        )
        text = ", ".join(f"{version} {ms:.0f} ms" for version, ms in found.items())
        row(f"plane {name} to serving", text, must="600 ms", aim="350")


async def measure(folder: Path) -> None:
    """Start a controller for the others, and print the table.

    Raises:
        BenchFailed: something does not run.
    """
    print("| start | measured | must | aim |\n| --- | --- | --- | --- |", flush=True)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_postgres(folder / "postgres"))
        command = [str(PLANE), "controller", "--db", url, "--default-cluster", CLUSTER]
        server = await stack.enter_async_context(serving(command, folder))
        await asyncio.to_thread(_rows, f"http://127.0.0.1:{server.port}", url, folder)


def main() -> None:
    """Entry point."""
    # Where this is set, each start compiles the program; the machines of users keep what was compiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    run_benchmark(measure)


if __name__ == "__main__":
    main()
