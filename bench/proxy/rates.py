"""The rows that are rates: all ways in turn, round after round; medians and ratios to nginx."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench.proxy.load import BROWSER_HEADERS, messages, wrk
from bench.proxy.parts import PORTS, TOKEN, Parts, cpu_s

__all__ = ["ROWS", "Row", "measure_rates"]

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
WAYS = ("plane", "nginx", "chp", "direct")


@dataclass(frozen=True)
class Row:
    """A workload.

    Attributes:
        gate, goal: of nginx's rate (issue 6).
        ways: how each is loaded; the result is a rate.
        plane: which of the proxies of `Parts` is meant by "plane".
    """

    name: str
    gate: float
    goal: float
    ways: dict[str, Callable[[], float]]
    plane: str = "plane"


def _http(path: str, connections: int = 64, headers: dict[str, str] | None = None) -> dict[str, Callable[[], float]]:
    ports = {"plane": PORTS.plane, "nginx": PORTS.nginx, "chp": PORTS.chp, "direct": PORTS.backend}
    return {
        way: partial(wrk, f"http://127.0.0.1:{port}{f'/{TOKEN}' if way == 'plane' else ''}{path}", connections, headers)
        for way, port in ports.items()
    }


ROWS = [
    Row("keep-alive small GET", 0.60, 0.80, _http("/small")),
    Row("with 12 browser headers", 0.55, 0.70, _http("/small", headers=BROWSER_HEADERS)),
    Row("new connection each", 0.65, 0.85, _http("/small", headers={"Connection": "close"})),
    Row("1 MiB bodies", 0.75, 0.95, _http("/large", connections=8)),
    Row(
        "WebSocket messages", 0.80, 1.0,
        {
            "plane": partial(messages, PORTS.plane, f"/{TOKEN}-echo/"),
            "nginx": partial(messages, PORTS.nginx, "/echo"),
            "chp": partial(messages, PORTS.chp, "/echo"),
            "direct": partial(messages, PORTS.sockets, "/echo"),
        },
    ),
    Row(
        "TLS keep-alive", 0.75, 0.90,
        {
            "plane": partial(wrk, f"https://127.0.0.1:{PORTS.plane_tls}/{TOKEN}/small"),
            "nginx": partial(wrk, f"https://127.0.0.1:{PORTS.nginx_tls}/small"),
        },
        plane="plane_tls",
    ),
]  # fmt: skip


def measure_rates(found: Parts, rows: list[Row]) -> bool:
    """Measure and print. True if all gates hold."""
    rates: dict[str, dict[str, list[float]]] = {row.name: {} for row in rows}
    # CPU time for as many requests as a second had: what a busy machine does not spoil.
    cpu: dict[str, dict[str, list[float]]] = {row.name: {} for row in rows}
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
        for row in rows:
            for way, load in row.ways.items():
                if way == "chp" and not found.has_chp:
                    continue
                pid = found.pids.get(row.plane if way == "plane" else way)
                before = 0.0 if pid is None else cpu_s(pid)
                rate = load()
                rates[row.name].setdefault(way, []).append(rate)
                if pid is not None:
                    cpu[row.name].setdefault(way, []).append((cpu_s(pid) - before) / rate)
    print(
        f"\n{'workload':<26}"
        + "".join(f"{way + '/s':>11}" for way in WAYS)
        + f"{'of nginx':>10}{'by CPU':>8}{'gate':>7}{'goal':>7}"
    )
    good = True
    for row in rows:
        ways = rates[row.name]
        # The median of the rounds' own ratios: neighbours in time suffer the same noise.
        ratio = statistics.median(p / n for p, n in zip(ways["plane"], ways["nginx"], strict=True))
        by_cpu = statistics.median(n / p for p, n in zip(cpu[row.name]["plane"], cpu[row.name]["nginx"], strict=True))
        good &= ratio >= row.gate
        medians = "".join(f"{statistics.median(ways[way]):>11.0f}" if way in ways else f"{'-':>11}" for way in WAYS)
        print(f"{row.name:<26}{medians}{ratio:>10.2f}{by_cpu:>8.2f}{row.gate:>7.2f}{row.goal:>7.2f}")
    if not found.has_chp:
        print("configurable-http-proxy was not measured: npm is not there, or could not install it")
    return good
