"""``python -m simulation FIRST COUNT``: runs that many seeds, and tells the shortest story of a violation."""

from __future__ import annotations

import sys
import time

from simulation.faults import simulate
from simulation.shrink import shortest_story
from simulation.world import Violation


def main() -> None:
    """Print what was simulated, or the story that led to a violation."""
    first, count = int(sys.argv[1]), int(sys.argv[2])
    began, steps, lives = time.monotonic(), 0, 0
    for seed in range(first, first + count):
        try:
            world = simulate(seed)
        except Violation:
            sys.exit(shortest_story(seed))
        steps, lives = steps + world.steps, lives + len(world.lives)
    elapsed_s = time.monotonic() - began
    print(f"{count} seeds, {lives} processes, {steps} steps, {steps / elapsed_s:.0f} a second: no violation")


if __name__ == "__main__":
    main()
