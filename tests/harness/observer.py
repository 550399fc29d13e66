"""An observer outside the cluster: every process appends its key's fencing token and the time, ten times a second."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from harness.clusters import BACKEND

__all__ = ["OBSERVED", "lives_seen", "overlaps"]

# Run by the tests' backend: LIVES is the file to append to.
OBSERVED = (
    """
import os, threading, time
def observe():
    while True:
        with open(os.environ["LIVES"], "a") as file:
            file.write(f"{os.environ['SESSION_BACKEND_FENCING_TOKEN']} {time.time()}\\n")
        time.sleep(0.1)
threading.Thread(target=observe, daemon=True).start()
"""
    + BACKEND
)


def lives_seen(lives: Path) -> dict[int, list[float]]:
    """When each life of a key was seen, by its fencing token."""
    seen: dict[int, list[float]] = {}
    for line in lives.read_text().splitlines() if lives.exists() else ():
        token, at = line.split()
        seen.setdefault(int(token), []).append(float(at))
    return seen


def overlaps(lives: Path) -> list[tuple[int, int]]:
    """The pairs of lives, by their tokens, of which the later began before the earlier had ended."""
    seen = lives_seen(lives)
    return [(a, b) for a, b in pairwise(sorted(seen)) if min(seen[b]) <= max(seen[a])]
