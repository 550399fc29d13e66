"""After kill -9 of a drone its keys are available again within a lease and a second, for a client that asks often.

With `pytest -s` it prints the seconds for each key.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from harness.clusters import separate_parts
from harness.program import program
from plane.timing import KEY_LEASE_S

KEYS = [f"key-{number}" for number in range(5)]
POLL_INTERVAL_S = 0.05
AVAILABLE_WITHIN_S = KEY_LEASE_S + 1.0
pytestmark = pytest.mark.timeout(180)


def test_the_keys_of_a_killed_drone_are_available_after_a_lease(postgres_url: str, tmp_path: Path) -> None:
    with separate_parts(postgres_url, tmp_path, controllers=1, drone=()) as cluster:
        lost = [cluster.spawn(key)["backend_id"] for key in KEYS]
        for backend in lost:
            cluster.until_status(backend, "ready")
        options = list(cluster.arguments_of["drone"])
        options[options.index("--name") + 1] = "dr-other"
        options[options.index("--db") + 1] = str(tmp_path / "other.sqlite")
        with program(["drone", *options], tmp_path, "other") as other:
            other.says("connected to controller")
            killed_at = time.monotonic()
            cluster.programs["drone"].stop(signal.SIGKILL)
            available: dict[str, float] = {}
            while len(available) < len(KEYS) and time.monotonic() < killed_at + 2 * KEY_LEASE_S:
                for key in KEYS:
                    if key not in available and cluster.spawn(key)["spawned"]:
                        available[key] = time.monotonic() - killed_at
                time.sleep(POLL_INTERVAL_S)
    print({key: round(seconds, 2) for key, seconds in available.items()})
    assert set(available) == set(KEYS)
    assert max(available.values()) < AVAILABLE_WITHIN_S, available
