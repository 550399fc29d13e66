"""`plane admin events` and `audit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from plane.cli.admin.options import DEFAULT_CONTROLLER, ControllerOptions
from plane.cli.output import AsJson, print_json, print_line, time_text
from plane.protocol import codec

if TYPE_CHECKING:
    from plane.client import FeedEvent

__all__ = ["audit", "event_text", "events"]

Follow = Annotated[
    bool, Parameter(name=("--follow", "-f"), negative="", help="Continue with new events; Ctrl-C ends it.")
]
Limit = Annotated[
    int,
    Parameter(name=("--limit", "-n"), validator=validators.Number(gte=1, lte=1000), help="Number of past events."),
]


async def events(
    *,
    follow: Follow = False,
    types: Annotated[list[str] | None, Parameter(name="--type", negative="")] = None,
    key: str | None = None,
    after: Annotated[int | None, Parameter(validator=validators.Number(gte=0))] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
    controller: ControllerOptions = DEFAULT_CONTROLLER,
) -> None:
    """Print the latest events of backends and drones, oldest first.

    Example: plane admin events --follow --type 'backend.*' --key my-document

    Parameters
    ----------
    types
        Only events of this type; a star at the end stands for any rest. May be given several times.
    key
        Only events of backends that were started for a key of this name.
    after
        Events after this id instead of the latest ones; 0: from the oldest that is kept.
    """
    await _print(controller, types, key, after, limit, follow=follow, as_json=as_json)


async def audit(
    *,
    follow: Follow = False,
    limit: Limit = 100,
    as_json: AsJson = False,
    controller: ControllerOptions = DEFAULT_CONTROLLER,
) -> None:
    """Print the latest calls of the control API that changed something, and who sent them. Needs the role admin.

    Example: plane admin audit --follow
    """
    await _print(controller, ["admin.*"], None, None, limit, follow=follow, as_json=as_json)


async def _print(
    controller: ControllerOptions,
    types: Sequence[str] | None,
    key: str | None,
    after: int | None,
    limit: int,
    *,
    follow: bool,
    as_json: bool,
) -> None:
    async with controller.client() as plane:
        page = await plane.events(after=after, types=types, key=key, limit=limit)
        for event in page.events:
            _show(event, as_json=as_json)
        if not (page.events or follow or as_json):
            print_line("No events")
        if follow:
            async for event in plane.follow_events(after=page.cursor, types=types, key=key):
                _show(event, as_json=as_json)


def _show(event: FeedEvent, *, as_json: bool) -> None:
    if as_json:
        print_json(event)
    else:
        print_line(event_text(event))


def event_text(event: FeedEvent) -> str:
    """Return an event as one line: its id, time and type, then what it has, as ``name=value``."""
    key = None if event.key is None else f"{event.namespace}/{event.key}" if event.namespace else event.key
    arguments = event.data.get("arguments")
    details = {
        "backend": event.backend,
        "key": key,
        "user": event.user,
        "drone": event.drone,
        "cluster": event.cluster,
        **{name: value for name, value in event.data.items() if name != "arguments"},
        **(arguments if isinstance(arguments, dict) else {}),
    }
    pairs = (f"{name}={_value(value)}" for name, value in details.items() if value is not None)
    return f"{event.id}  {time_text(event.time)}  {event.type:<18}  {' '.join(pairs)}".rstrip()


def _value(value: object) -> str:
    """Return a value; as JSON unless it is one plain word, so that one event is always one line."""
    if isinstance(value, str) and value.isprintable() and value and not set(value) & set(' "='):
        return value
    return codec.encode(value).decode()
