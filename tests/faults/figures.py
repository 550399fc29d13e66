"""Figures of histories, as the table of docs/concepts/guarantees.md: how often each fault was, and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from faults.history import Fault, History

__all__ = ["FaultFigures", "by_fault", "markdown", "takeovers", "unavailable"]

# An interruption belongs to the faults that were active in it or so shortly before it.
AFTER_S = 5.0


@dataclass
class FaultFigures:
    """Of one kind of fault. ``longest_s``: the longest interruption of a key that it can have caused."""

    kind: str
    count: int = 0
    longest_s: float = 0.0
    # Interruptions that no other kind of fault can have caused.
    longest_alone_s: float = field(default=0.0)


def unavailable(history: History) -> list[tuple[str, float, float]]:
    """Return the interruptions of each key: from one successful read to the next one."""
    reads: dict[str, list[float]] = {}
    for operation in history.of_kind("read"):
        if operation.is_ok and operation.completed is not None:
            reads.setdefault(operation.invoked.key, []).append(operation.completed.at)
    return [(key, *gap) for key, times in reads.items() for gap in pairwise(sorted(times))]


def takeovers(history: History) -> list[float]:
    """Return the seconds from each kill of a drone that stays away to the next process of each of its keys."""
    found = []
    for fault in history.faults:
        if fault.began.kind != "program killed" or not fault.began.target.startswith("drone"):
            continue
        for life in history.lives:
            if life.host != fault.began.target or not life.at < fault.began.at <= life.last:
                continue
            later = (each for each in history.lives if each.key == life.key and each.at > life.last)
            following = next(later, None)
            if following is not None and (fault.ended is None or following.at < fault.ended):
                found.append(following.at - fault.began.at)
    return found


def by_fault(histories: Sequence[History]) -> list[FaultFigures]:
    """Return the figures of each kind of fault, over several runs."""
    found: dict[str, FaultFigures] = {}
    for history in histories:
        for fault in history.faults:
            found.setdefault(fault.began.kind, FaultFigures(fault.began.kind)).count += 1
        for _, first, last in unavailable(history):
            causes = {fault.began.kind for fault in history.faults if _may_cause(fault, first, last)}
            for kind in causes:
                found[kind].longest_s = max(found[kind].longest_s, last - first)
                if len(causes) == 1:
                    found[kind].longest_alone_s = max(found[kind].longest_alone_s, last - first)
    return sorted(found.values(), key=lambda figures: figures.kind)


def _may_cause(fault: Fault, first: float, last: float) -> bool:
    return fault.began.at < last and (fault.ended is None or fault.ended + AFTER_S > first)


def markdown(histories: Sequence[History]) -> str:
    """Return the figures as a table, with the sums above it."""
    rounds = sum(history.end.rounds for history in histories if history.end is not None)
    lives = sum(len(history.lives) for history in histories)
    connects = sum(len(history.of_kind("connect")) for history in histories)
    operations = sum(len(history.operations) for history in histories)
    lines = [
        f"{rounds} rounds, {lives} processes, {connects} connects, {operations} operations of clients in all.",
        "",
        "| fault | how often | longest interruption of a key (s) | of those with no other fault (s) |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {each.kind} | {each.count} | {each.longest_s:.1f} | {each.longest_alone_s:.1f} |"
        for each in by_fault(histories)
    ]
    taken_over = [seconds for history in histories for seconds in takeovers(history)]
    if taken_over:
        longest = f"{max(taken_over):.1f} s after the kill at the latest"
        lines += [
            "",
            f"After kill -9 of a drone that stayed away, {len(taken_over)} keys had another process {longest}.",
        ]
    return "\n".join(lines)
