"""`plane executor`."""

from __future__ import annotations

from pathlib import Path

from plane.cli.runtime_options import RuntimeOptions
from plane.settings import ExecutorSettings

__all__ = ["executor"]


def executor(*, socket: Path, options: RuntimeOptions | None = None) -> None:
    """Run an external executor: it runs backends for a drone, over a Unix socket.

    Example: plane executor --socket /run/plane/executor.sock --runtime process

    Parameters
    ----------
    socket
        Unix socket to listen on.
    """
    from plane.cli.serving import serve
    from plane.executor.server import start_executor

    serve(start_executor(ExecutorSettings(socket=socket, **(options or RuntimeOptions()).settings())))
