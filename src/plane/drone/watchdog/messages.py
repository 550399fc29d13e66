"""The messages from the drone to its watchdog: one JSON object per line.

The watchdog responds to each `Tick` with a line that has its number. Every `Hold` is complete, so that a lost or
repeated one does no harm. The format must stay readable for the watchdog of another version.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from plane.runtime.kill_target import ContainerTarget, KillTarget, ProcessTarget

__all__ = ["Hold", "Message", "Release", "Tick", "decode", "encode"]


@dataclass(frozen=True, slots=True)
class Hold:
    """A backend has a lease.

    Attributes:
        soft_ns, hard_ns: its deadlines, in nanoseconds of CLOCK_BOOTTIME.
        target: where its processes are; None: nothing was started yet.
    """

    backend_id: str
    soft_ns: int
    hard_ns: int
    target: KillTarget | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A backend has ended."""

    backend_id: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The drone is alive. The response confirms all messages that were sent before."""

    number: int


Message = Hold | Release | Tick
_KINDS: dict[str, type[Message]] = {"hold": Hold, "release": Release, "tick": Tick}
_TARGETS: dict[str, type[KillTarget]] = {"process": ProcessTarget, "container": ContainerTarget}


def encode(message: Message) -> bytes:
    """Return a message as a line."""
    fields = asdict(message)
    if isinstance(message, Hold) and message.target is not None:
        kind = "process" if isinstance(message.target, ProcessTarget) else "container"
        fields["target"] = {"kind": kind, **asdict(message.target)}
    return json.dumps({"message": type(message).__name__.lower(), **fields}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Parse a line.

    Raises:
        ValueError, KeyError, TypeError: the line is not a message.
    """
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise TypeError("a message is a JSON object")
    kind = _KINDS[fields.pop("message")]
    if fields.get("target") is not None:
        target = fields["target"]
        target_kind = _TARGETS[target.pop("kind")]
        if "groups" in target:
            target["groups"] = tuple(target["groups"])
        fields["target"] = target_kind(**target)
    return kind(**fields)
