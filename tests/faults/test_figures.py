"""Figures and the timeline say what a history has."""

from __future__ import annotations

from faults.checker.guarantees import check
from faults.figures import by_fault, markdown, takeovers, unavailable
from faults.history import Completed, FaultBegan, FaultEnded, History, Invoked, Life, Record, RunEnded
from faults.timeline import timeline


def read(op: int, at: float, outcome: str = "ok") -> list[Record]:
    return [Invoked(at, op, "read", "k", "proxy-1", {"token": "t"}), Completed(at, op, outcome, {"key": "k"})]


HISTORY = History(
    [
        *read(1, 1.0),
        *read(2, 2.0),
        *read(3, 30.0, "failed"),
        *read(4, 62.0),
        *read(5, 80.0),
        FaultBegan(2.5, 1, 1, "program killed", "drone-1"),
        FaultEnded(3.0, 1),
        FaultBegan(70.0, 2, 2, "disk full", "drone-1"),
        FaultBegan(71.0, 3, 2, "clock steps", "database"),
        RunEnded(90.0, 5, 2),
    ]
)


def test_an_interruption_is_from_one_successful_read_to_the_next() -> None:
    assert unavailable(HISTORY) == [("k", 1.0, 2.0), ("k", 2.0, 62.0), ("k", 62.0, 80.0)]


def test_an_interruption_belongs_to_the_faults_in_it() -> None:
    found = {
        figures.kind: (figures.count, figures.longest_s, figures.longest_alone_s) for figures in by_fault([HISTORY])
    }
    assert found == {"program killed": (1, 60.0, 60.0), "disk full": (1, 18.0, 0.0), "clock steps": (1, 18.0, 0.0)}


def test_a_key_of_a_killed_drone_is_taken_over_by_its_next_process() -> None:
    lives = [
        Life(1.0, 50.0, "k", 1, "b", "drone-1", "p"),
        Life(58.0, 90.0, "k", 2, "c", "drone-2", "q"),
        # Its own drone is back.
        Life(1.0, 20.0, "other", 1, "d", "drone-1", "r"),
        Life(95.0, 99.0, "other", 2, "e", "drone-1", "s"),
    ]
    faults: list[Record] = [FaultBegan(10.0, 1, 1, "program killed", "drone-1"), FaultEnded(80.0, 1)]
    assert takeovers(History([*lives, *faults])) == [48.0]
    assert "1 keys had another process 48.0 s after the kill" in markdown([History([*lives, *faults])])


def test_the_table_sums_up_several_runs() -> None:
    text = markdown([HISTORY, HISTORY])
    assert "4 rounds, 0 processes, 0 connects, 10 operations" in text
    assert "| program killed | 2 | 60.0 | 60.0 |" in text


def test_the_timeline_has_a_lane_for_each_target_key_and_host() -> None:
    lives = [Life(1.0, 9.0, "k", 1, "b", "drone-1", "p"), Life(5.0, 12.0, "k", 2, "<c>", "drone-2", "q")]
    history = History([*HISTORY.records, *lives])
    page = timeline(history, check(history))
    for lane in ("fault drone-1", "fault database", ">k<", "on drone-1", "on drone-2"):
        assert lane in page
    # In the lanes of the key and of the hosts.
    assert page.count('class="bad"') == 4
    assert "&lt;c&gt;" in page
    assert "<c>" not in page
