"""`plane db events`."""

from __future__ import annotations

from plane.cli.db.options import DatabaseOption
from plane.cli.output import AsJson, console, print_json
from plane.protocol import codec

__all__ = ["events"]


async def events(*, db: DatabaseOption, as_json: AsJson = False) -> None:
    """Follow the event bus of the controllers until Ctrl-C.

    Example: plane db events --json | jq .payload
    """
    from rich.markup import escape

    from plane.cli.logs import set_up_logs
    from plane.database.event_tail import follow_events

    set_up_logs("warning")
    out = console()
    if out.is_terminal and not as_json:
        out.print("[dim]Following new events; press Ctrl-C to stop.[/dim]")
    async for event in follow_events(db):
        if as_json:
            print_json(event)
        else:
            key = escape(event.key) if event.key is not None else "-"
            payload = escape(codec.encode(event.payload).decode())
            out.print(
                f"{event.timestamp:%H:%M:%S}  [cyan]{escape(event.kind)}[/cyan]  {key}  {payload}", soft_wrap=True
            )
