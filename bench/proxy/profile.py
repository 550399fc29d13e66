"""Where the time of the first row goes: the proxy under cProfile, which makes every call dearer than it is."""

from __future__ import annotations

import pstats
import sys

from bench.proxy.load import SECONDS, until_served, wrk
from bench.proxy.parts import MEASURED_CORE, PORTS, TOKEN, Parts, cpu_s, plane, running

__all__ = ["profile"]

SHOWN = 14


def profile(found: Parts) -> None:
    """Print CPU time per request without a profiler, and then the functions in which it is spent."""
    url = f"http://127.0.0.1:{PORTS.workers}/{TOKEN}/small"
    with running(MEASURED_CORE, *plane(PORTS.workers)) as pid:
        until_served(url)
        wrk(url)
        before = cpu_s(pid)
        rate = wrk(url)
        print(f"CPU time per request: {(cpu_s(pid) - before) / (rate * SECONDS) * 1e6:.1f} µs")
    file = found.folder / "profile"
    with running(MEASURED_CORE, sys.executable, "-m", "cProfile", "-o", file, *plane(PORTS.workers)):
        until_served(url)
        wrk(url)
    # By file, line and name: calls without recursion, calls, own time, …
    found_in: dict[tuple[str, int, str], tuple[int, int, float]] = {
        key: value[:3]
        for key, value in pstats.Stats(str(file)).stats.items()  # type: ignore[attr-defined]
    }
    requests = next(calls for (_, _, name), (_, calls, _) in found_in.items() if name == "upstream_bytes")
    print(f"own time per request, µs, of what is called for each of {requests} (profiled):")
    of_requests = [(own, key) for key, (_, calls, own) in found_in.items() if calls >= requests]
    for own, (where, _, name) in sorted(of_requests, reverse=True)[:SHOWN]:
        module = where.rpartition("plane/")[2].removesuffix(".py").replace("~", "built-in")
        print(f"{own / requests * 1e6:>8.2f}  {module}: {name}")
