"""The program of a proxy's worker; `plane.proxy.processes.workers` starts it with the descriptor of its link."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

import uvloop

from plane.cli.logs import print_uncaught, set_up_logs
from plane.decisions.redaction import redacted
from plane.protocol.errors import PlaneError
from plane.proxy.processes.worker import receive_config, run_worker

__all__ = ["COMMAND", "main"]

COMMAND = (sys.executable, "-m", "plane.cli.proxy_worker")


async def _run(pair: socket.socket) -> None:
    config = receive_config(pair)
    pair.setblocking(False)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run_worker(pair, config, stop)


def main() -> None:
    """Serve until the proxy requests the stop, or has ended."""
    sys.excepthook = print_uncaught
    set_up_logs()
    try:
        uvloop.run(_run(socket.socket(fileno=int(sys.argv[1]))))
    except PlaneError as error:
        print(f"plane: {redacted(str(error))}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main()
