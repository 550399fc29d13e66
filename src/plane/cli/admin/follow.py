"""Prints a backend's states until the wanted one, for `connect`, `terminate` and `backend-status`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from plane.cli.output import console, entry_text, print_json

if TYPE_CHECKING:
    from plane.client import AsyncPlane, BackendStatus

__all__ = ["follow"]


async def follow(plane: AsyncPlane, backend: str, wanted: BackendStatus, *, as_json: bool) -> None:
    """Print each state as it comes, until ``wanted``.

    Raises:
        BackendEnded: its status is past ``wanted``.
        CallFailed
    """
    from plane.client import BackendEnded, BackendStatus

    out = console()
    shows_wait = out.is_terminal and not as_json
    with out.status(f"waiting until it is {wanted}") if shows_wait else nullcontext() as wait:
        async for public in plane.status_stream(backend):
            entry = await plane.with_output(backend, public)
            if as_json:
                print_json(entry)
            else:
                out.print(entry_text(entry))
            if wait is not None and entry.status is BackendStatus.WAITING:
                wait.update("waiting until it responds to HTTP on the port in PORT")
            if entry.status is wanted:
                return
            if entry.status.number > wanted.number:
                raise BackendEnded(backend, entry)
