"""A drone ends the watchdog of its former process, and touches no other process that has its id by now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plane.drone.watchdog import supervisor
from plane.runtime.process.procfs import start_time


@pytest.mark.parametrize("is_reused", [True, False])
def test_the_command_line_of_a_process_with_a_reused_id_is_not_read(
    is_reused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could hold the lock of its memory, for which the reader waits."""
    read: list[Path] = []

    def read_bytes(path: Path) -> bytes:
        read.append(path)
        return b"another program"

    place = tmp_path / "place"
    pid = os.getpid()
    place.symlink_to(f"{pid}:{start_time(pid) + is_reused}")
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    supervisor._kill_watchdog_at(place)
    assert read == ([] if is_reused else [Path(f"/proc/{pid}/cmdline")])
