"""Ports for programs that cannot be told to take any free one."""

from __future__ import annotations

import os
import random
import socket

__all__ = ["free_port"]

# Below those of backends, and those of outgoing connections, which could take a port between now and its use.
FIRST, LAST = 10_000, 20_000
# Each worker of a run has ports of its own; of two runs at once, chance keeps them apart.
WORKERS = 8

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
_own = [port for port in range(FIRST, LAST) if port % WORKERS == _worker]
_given: set[int] = set()


def free_port() -> int:
    """A port of loopback that nobody has, TCP and UDP, and that was not given before."""
    while True:
        port = random.choice(_own)
        if port in _given:
            continue
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        _given.add(port)
        return port
