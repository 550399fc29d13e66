"""`plane admin terminate`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from plane.cli.admin.follow import follow
from plane.cli.admin.options import DEFAULT_CONTROLLER, ControllerOptions
from plane.cli.output import AsJson, console

__all__ = ["terminate"]


async def terminate(
    backend: str,
    /,
    *,
    hard: Annotated[bool, Parameter(negative="")] = False,
    immediate: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
    controller: ControllerOptions = DEFAULT_CONTROLLER,
) -> None:
    """Ask a backend to stop, and follow it until it has terminated.

    Example: plane admin terminate k6xqveyu5dhqvw --hard

    Parameters
    ----------
    backend
        Name of the backend.
    hard
        Kill it instead of asking it to stop.
    immediate
        Return without waiting for its end.
    """
    from plane.client import BackendStatus

    async with controller.client() as plane:
        await plane.terminate(backend, hard=hard)
        if not as_json:
            console().print(f"{'Killing' if hard else 'Stopping'} backend {backend}")
        if not immediate:
            await follow(plane, backend, BackendStatus.TERMINATED, as_json=as_json)
