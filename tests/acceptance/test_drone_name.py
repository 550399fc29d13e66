"""A drone keeps the name under which controllers know its backends, and says so if it is given another."""

from __future__ import annotations

from pathlib import Path

from harness.clusters import until
from harness.fake_controller import FakeController, fake_controller
from harness.program import program


def run_once(controller: FakeController, folder: Path, *options: str) -> str:
    """The name of a drone that starts, connects and stops; its log is in ``folder``."""
    before = len(controller.names)
    nodes = ("--controller-url", controller.url, "--cluster", "localhost:1", "--runtime", "process")
    with program(["drone", *nodes, *options], folder, "drone") as drone:
        until(lambda: len(controller.names) > before)
        assert drone.stop() == 0
    return controller.names[-1]


def test_a_drone_that_was_given_none_keeps_its_own(tmp_path: Path) -> None:
    db = ("--db", str(tmp_path / "drone.sqlite"))
    with fake_controller(renew_s=30, soft_s=40, hard_s=50) as controller:
        first = run_once(controller, tmp_path, *db)
        assert first.startswith("dr-")
        assert run_once(controller, tmp_path, *db) == first
        assert "another name" not in (tmp_path / "drone.log").read_text()

        assert run_once(controller, tmp_path, *db, "--name", "dr-other") == "dr-other"
        line = next(line for line in (tmp_path / "drone.log").read_text().splitlines() if "another name" in line)
        assert first in line
        assert "dr-other" in line
        assert run_once(controller, tmp_path, *db) == "dr-other"
        # Without a file nothing is remembered.
        assert run_once(controller, tmp_path) not in (first, "dr-other")
