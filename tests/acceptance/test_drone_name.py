"""A drone keeps the name under which controllers know its backends, and no other drone gets that name beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.clusters import processes_of, separate_parts, until
from harness.fake_controller import FakeController, fake_controller
from harness.faults import rebooted
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
        assert "differs from the stored name" not in (tmp_path / "drone.log").read_text()

        assert run_once(controller, tmp_path, *db, "--name", "dr-other") == "dr-other"
        line = next(
            line for line in (tmp_path / "drone.log").read_text().splitlines() if "differs from the stored name" in line
        )
        assert first in line
        assert "dr-other" in line
        assert run_once(controller, tmp_path, *db) == "dr-other"
        # Without a file nothing is remembered.
        assert run_once(controller, tmp_path) not in (first, "dr-other")


@pytest.mark.parametrize("copied", [True, False], ids=["a cloned machine", "the same machine"])
def test_a_second_drone_of_one_name_is_refused_and_ends_nothing(
    postgres_url: str, tmp_path: Path, copied: bool
) -> None:
    store = tmp_path / "drone.sqlite"
    with separate_parts(postgres_url, tmp_path, controllers=1, drone=("--db", str(store))) as cluster:
        first = cluster.spawn("k")["backend_id"]
        cluster.until_status(first, "ready")
        runs = processes_of(first)
        clone = tmp_path / "clone"
        clone.mkdir()
        db: tuple[str, ...] = ()
        prefix: tuple[str, ...] = ()
        if copied:
            for path in tmp_path.glob("drone.sqlite*"):
                if path.is_file() and not path.is_symlink():
                    shutil.copy(path, clone)
            db, prefix = ("--db", str(clone / "drone.sqlite")), rebooted(tmp_path)
        nodes = ("--controller-url", cluster.control_urls[0], "--cluster", f"localhost:{cluster.proxy_port}")
        arguments = ["drone", *nodes, "--name", "dr-test", "--runtime", "process", *db]
        with program(arguments, clone, "second", *prefix) as second:
            second.says("controller refuses this node")
            assert "give each its own --name" in second.log.read_text()
            # The first one goes on working, and the key stays where it is.
            other = cluster.spawn("other")["backend_id"]
            cluster.until_status(other, "ready")
            assert cluster.spawn("k")["backend_id"] == first
            assert processes_of(first) == runs
            assert other not in second.log.read_text()
