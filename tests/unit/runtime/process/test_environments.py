"""Environments of processes that hold the lock of their memory."""

from __future__ import annotations

import threading
import time

import pytest

from plane.runtime.process import environments
from plane.runtime.process.environments import EnvironmentReader


class Processes:
    """Processes with the environment ``A=pid``. Those in ``hanging`` cannot be read until ``released`` is set."""

    def __init__(self) -> None:
        self.hanging: set[int] = set()
        self.released = threading.Event()
        self.reads: list[int] = []

    def environment(self, pid: int) -> list[bytes]:
        self.reads.append(pid)
        if pid in self.hanging:
            assert self.released.wait(30)
        return [b"A=%d" % pid]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    subject = Processes()
    monkeypatch.setattr(environments, "_environment", subject.environment)
    return subject


def test_a_process_that_cannot_be_read_is_skipped(processes: Processes) -> None:
    processes.hanging = {2, 3}
    reader = EnvironmentReader(timeout_s=0.05)
    assert reader.read([1, 2, 3, 4]) == {1: [b"A=1"], 4: [b"A=4"]}
    # The next search does not wait for it, and holds no other thread.
    assert set(reader.read([1, 2, 3, 4])) == {1, 4}
    assert sorted(processes.reads) == [1, 1, 2, 3, 4, 4]
    processes.released.set()
    end = time.monotonic() + 10
    while set(reader.read([1, 2, 3, 4])) != {1, 2, 3, 4}:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_threads_of_processes_that_cannot_be_read_are_limited(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "HANGING_LIMIT", 3)
    processes.hanging = set(range(10))
    with pytest.raises(OSError, match="more than 3 processes"):
        EnvironmentReader(timeout_s=0.01).read(range(10))
    assert processes.reads == [0, 1, 2, 3]
    processes.released.set()
