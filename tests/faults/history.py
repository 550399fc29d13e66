"""The records of a run, and the file that they are kept in: one JSON object per line.

All times are seconds since the run began, on the machine's CLOCK_BOOTTIME, which no fault changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

__all__ = [
    "Completed",
    "FaultBegan",
    "FaultEnded",
    "History",
    "Invoked",
    "Life",
    "Operation",
    "Record",
    "RunEnded",
    "StoredBackend",
    "StoredOnDrone",
    "read_history",
    "write_history",
]


class Invoked(msgspec.Struct, frozen=True, tag="invoked"):
    """A client begins an operation. ``target``: the controller or proxy that it calls."""

    at: float
    op: int
    kind: str
    key: str
    target: str
    detail: dict[str, Any] = {}


class Completed(msgspec.Struct, frozen=True, tag="completed"):
    """An operation is over. ``outcome``: ok, failed (it had no effect), or unknown (it may have one)."""

    at: float
    op: int
    outcome: str
    detail: dict[str, Any] = {}


class Life(msgspec.Struct, frozen=True, tag="life"):
    """A process: from its first report to its last one."""

    at: float
    last: float
    key: str
    token: int
    backend: str
    host: str
    process: str


class FaultBegan(msgspec.Struct, frozen=True, tag="fault_began"):
    """A fault begins at a target: a host or a program."""

    at: float
    fault: int
    round: int
    kind: str
    target: str
    detail: str = ""


class FaultEnded(msgspec.Struct, frozen=True, tag="fault_ended"):
    """A fault was undone."""

    at: float
    fault: int


class StoredBackend(msgspec.Struct, frozen=True, tag="stored_backend"):
    """A backend in the database at the end. ``states``: status and reason of each stored state, in their order."""

    at: float
    backend: str
    status: str
    states: list[tuple[str, str | None]]
    drone: str
    # Of its row in backend_key.
    holds_key: bool = False
    # The status that it had before its end, as its last state says; None: it has not ended.
    ended_from: str | None = None


class StoredOnDrone(msgspec.Struct, frozen=True, tag="stored_on_drone"):
    """A backend in a drone's state store at the end. ``unacknowledged``: how many of its states are."""

    at: float
    drone: str
    backend: str
    status: str
    unacknowledged: int


class RunEnded(msgspec.Struct, frozen=True, tag="run_ended"):
    """The cluster was left alone since the last fault; ``at``: when it was looked at."""

    at: float
    seed: int
    rounds: int


Record = Invoked | Completed | Life | FaultBegan | FaultEnded | StoredBackend | StoredOnDrone | RunEnded


@dataclass(frozen=True)
class Operation:
    """An operation with its completion; None: the run ended before."""

    invoked: Invoked
    completed: Completed | None

    @property
    def is_ok(self) -> bool:
        return self.completed is not None and self.completed.outcome == "ok"

    def answer(self, name: str) -> Any:
        """What the completion says; None: nothing."""
        return None if self.completed is None else self.completed.detail.get(name)


@dataclass(frozen=True)
class Fault:
    """A fault with its end; None: it was never undone."""

    began: FaultBegan
    ended: float | None

    def overlaps(self, first: float, last: float) -> bool:
        """Whether it was active at some moment from ``first`` to ``last``."""
        return self.began.at <= last and (self.ended is None or self.ended >= first)


@dataclass(frozen=True)
class History:
    """All records of a run."""

    records: list[Record] = field(default_factory=list)

    @cached_property
    def operations(self) -> list[Operation]:
        completed = {each.op: each for each in self.records if isinstance(each, Completed)}
        return [Operation(each, completed.get(each.op)) for each in self.records if isinstance(each, Invoked)]

    @cached_property
    def lives(self) -> list[Life]:
        return sorted((each for each in self.records if isinstance(each, Life)), key=lambda life: life.at)

    @cached_property
    def faults(self) -> list[Fault]:
        ended = {each.fault: each.at for each in self.records if isinstance(each, FaultEnded)}
        return [Fault(each, ended.get(each.fault)) for each in self.records if isinstance(each, FaultBegan)]

    @cached_property
    def stored(self) -> dict[str, StoredBackend]:
        return {each.backend: each for each in self.records if isinstance(each, StoredBackend)}

    @cached_property
    def on_drones(self) -> list[StoredOnDrone]:
        return [each for each in self.records if isinstance(each, StoredOnDrone)]

    @cached_property
    def end(self) -> RunEnded | None:
        return next((each for each in self.records if isinstance(each, RunEnded)), None)

    def of_kind(self, kind: str) -> list[Operation]:
        return [each for each in self.operations if each.invoked.kind == kind]

    def is_calm(self, first: float, last: float, *roles: str) -> bool:
        """Whether no fault was active from ``first`` to ``last`` at targets of these roles."""
        return not any(
            fault.overlaps(first, last) for fault in self.faults if fault.began.target.partition("-")[0] in roles
        )


def write_history(path: Path, records: Iterable[Record]) -> None:
    """Write records in the order of their times."""
    encoder = msgspec.json.Encoder()
    lines = [encoder.encode(record) for record in sorted(records, key=lambda record: record.at)]
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def read_history(path: Path) -> History:
    """Read what `write_history` has written."""
    decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
    return History(decoder.decode_lines(path.read_bytes()))
