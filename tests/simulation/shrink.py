"""Shrinks a violation to the fewest faults that lead to it, by leaving out ever smaller parts (delta debugging)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulation.database import Mutations
from simulation.faults import Fault, plan, simulate
from simulation.world import Violation

__all__ = ["shortest_story", "shrink"]


def shrink(faults: Sequence[Fault], fails: Callable[[Sequence[Fault]], bool]) -> list[Fault]:
    """Return a part of ``faults`` that still fails, and of which no single fault can be left out."""
    rest, parts = list(faults), 2
    while rest:
        size = max(1, len(rest) // parts)
        without = next(
            (kept for first in range(0, len(rest), size) if fails(kept := rest[:first] + rest[first + size :])), None
        )
        if without is not None:
            rest, parts = without, max(2, parts - 1)
        elif size == 1:
            break
        else:
            parts = min(len(rest), parts * 2)
    return rest


def shortest_story(seed: int, mutations: Mutations = Mutations()) -> str:  # noqa: B008
    """Return the story of a seed that violates a guarantee, with as few faults as possible."""

    def violation(faults: Sequence[Fault]) -> Violation | None:
        try:
            simulate(seed, mutations, faults=faults)
        except Violation as found:
            return found
        return None

    faults = shrink(plan(seed), lambda kept: violation(kept) is not None)
    lines = [f"{fault.at:9.3f} s  {fault.kind} of {fault.machine + 1}, {fault.amount:.0f} s" for fault in faults]
    return "\n".join([f"{len(faults)} faults of seed {seed} suffice:", *lines, str(violation(faults))])
