"""The checker finds each guarantee broken in a history that breaks it, and nothing in one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from faults.checker.guarantees import GUARANTEES, check
from faults.checker.violation import excerpt
from faults.history import (
    Completed,
    FaultBegan,
    FaultEnded,
    History,
    Invoked,
    Life,
    Record,
    RunEnded,
    StoredBackend,
    StoredOnDrone,
    read_history,
    write_history,
)

STARTED: list[tuple[str, str | None]] = [("scheduled", None), ("loading", None), ("starting", None), ("ready", None)]
ENDED: list[tuple[str, str | None]] = [*STARTED, ("terminating", "external"), ("terminated", "external")]
END = RunEnded(300.0, 1, 1)


def life(backend: str, first: float, last: float, token: int, **changes: Any) -> Life:
    made = Life(first, last, "k", token, backend, "drone-1", f"p-{backend}-{first}")
    return msgspec.structs.replace(made, **changes)


def operation(op: int, at: float, kind: str, detail: dict[str, Any], answer: dict[str, Any]) -> list[Record]:
    return [Invoked(at, op, kind, "k", "proxy-1", detail), Completed(at + 0.1, op, "ok", answer)]


def connected(op: int, at: float, backend: str, token: str = "t", *, spawned: bool = False) -> list[Record]:
    answer = {"backend_id": backend, "spawned": spawned, "token": token}
    return operation(op, at, "connect", {"user": "u"}, answer)


def stored(backend: str, states: list[tuple[str, str | None]], ended_from: str | None = None) -> StoredBackend:
    return StoredBackend(300.0, backend, states[-1][0], states, "dr-1", ended_from=ended_from)


def kept(backend: str, status: str, unacknowledged: int = 0) -> StoredOnDrone:
    return StoredOnDrone(300.0, "drone-1", backend, status, unacknowledged)


def revoked(op: int, at: float) -> list[Record]:
    return operation(op, at, "revoke", {"backend": "b", "user": "u"}, {})


def read(op: int, at: float, answer: dict[str, Any] | None = None) -> list[Record]:
    return operation(op, at, "read", {"token": "t", "backend": "b"}, answer or {"key": "k"})


def tunnel(op: int, at: float, last: float) -> list[Record]:
    answer = {"opened": at, "last": last, "keys": ["k"]}
    return operation(op, at, "tunnel", {"token": "t", "backend": "b"}, answer)


def terminated(op: int, at: float) -> list[Record]:
    return operation(op, at, "terminate", {"backend": "b", "how": "hard"}, {})


def followed(op: int, statuses: list[str]) -> list[Record]:
    return operation(op, 5.0, "follow", {"backend": "b"}, {"statuses": statuses})


FAULT: list[Record] = [FaultBegan(90.0, 1, 1, "host cut off", "proxy-1"), FaultEnded(130.0, 1)]
LONG_FAULT = FaultBegan(90.0, 1, 1, "program stopped", "drone-1")
DRONE_FAULT = FaultBegan(90.0, 1, 1, "host cut off", "drone-1")
SOUND: list[Record] = [
    *connected(1, 1.0, "b", spawned=True),
    life("b", 2.0, 50.0, 7),
    *read(2, 3.0),
    *followed(3, ["scheduled", "loading", "ready"]),
    *tunnel(4, 40.0, 50.2),
    *terminated(5, 49.0),
    *connected(6, 51.0, "c", "t2", spawned=True),
    life("c", 52.0, 299.9, 8),
    stored("b", ENDED, "ready"),
    stored("c", STARTED),
    kept("b", "terminated"),
    kept("c", "ready"),
    END,
]
WRONG: list[tuple[int, str, list[Record]]] = [
    (1, "two processes for 10.00 s", [life("b", 1.0, 20.0, 7), life("c", 10.0, 30.0, 8)]),
    (1, "two processes", [life("b", 1.0, 20.0, 7), life("b", 10.0, 30.0, 7, host="drone-2")]),
    (1, "b on", [life("b", 1.0, 40.0, 7), life("c", 41.0, 42.0, 8, key="other"), life("d", 39.0, 43.0, 9)]),
    (2, "has token 7 after b had 8", [life("b", 1.0, 2.0, 8), life("c", 3.0, 4.0, 7)]),
    (2, "has token 8 after b had 8", [life("b", 1.0, 2.0, 8), life("c", 3.0, 4.0, 8)]),
    (3, "is not stored", [*connected(1, 1.0, "b", spawned=True), END]),
    (3, "is still scheduled", [*connected(1, 1.0, "b", spawned=True), stored("b", STARTED[:1]), END]),
    (
        3,
        "ended without a reason",
        [*connected(1, 1.0, "b", spawned=True), stored("b", [STARTED[0], ("terminated", None)]), END],
    ),
    (4, "out of order", [stored("b", [*STARTED, ("loading", None)])]),
    (4, "out of order", [stored("b", [*STARTED, STARTED[-1]])]),
    (4, "ended from ready, which is not stored", [stored("b", [*STARTED[:1], ("terminated", "external")], "ready")]),
    (4, "no unacknowledged state", [stored("b", STARTED[:2]), kept("b", "ready")]),
    (4, "a client saw", [*followed(1, ["scheduled", "ready"]), stored("b", STARTED[:2])]),
    (4, "a client saw", [*followed(1, ["ready", "loading"]), stored("b", ENDED)]),
    (5, "is recorded as terminated", [life("b", 1.0, 299.9, 7), stored("b", ENDED), END]),
    (5, "is not stored", [life("b", 1.0, 299.9, 7), END]),
    (5, "has no process", [life("b", 1.0, 100.0, 7), stored("b", STARTED), END]),
    (5, "lived 5.9 s after its hard termination", [*terminated(1, 100.0), life("b", 1.0, 106.0, 7)]),
    (5, "lived 58.0 s after the last renewal", [LONG_FAULT, life("b", 1.0, 148.0, 7)]),
    (6, "let a read through", [*connected(1, 1.0, "b"), *revoked(2, 100.0), *read(3, 100.2)]),
    (6, "let a read through", [DRONE_FAULT, *connected(1, 1.0, "b"), *revoked(2, 100.0), *read(3, 100.2)]),
    (6, "let a tunnel through", [*connected(1, 1.0, "b"), *revoked(2, 100.0), *tunnel(3, 100.2, 100.3)]),
    (6, "left a tunnel open for 2.4", [*connected(1, 1.0, "b"), *revoked(2, 100.0), *tunnel(3, 90.0, 102.5)]),
    (6, "let a read through", [*FAULT, *connected(1, 1.0, "b"), *revoked(2, 100.0), *read(3, 196.0)]),
    (7, "to the process of other", read(1, 1.0, {"key": "other"})),
    (7, "to the process of other", operation(1, 1.0, "tunnel", {"token": "t"}, {"keys": ["k", "other"], "last": 2.0})),
]
RIGHT: list[tuple[str, list[Record]]] = [
    ("a sound history", SOUND),
    ("one process after another", [life("b", 1.0, 20.0, 7), life("c", 20.1, 30.0, 8)]),
    ("processes of two keys", [life("b", 1.0, 20.0, 7), life("c", 10.0, 30.0, 7, key="other")]),
    ("a process that is started again", [life("b", 1.0, 2.0, 7), life("b", 3.0, 4.0, 7)]),
    ("a promise that ended with a reason", [*connected(1, 1.0, "b", spawned=True), stored("b", ENDED), END]),
    ("a backend that its drone did not know", [stored("b", [*STARTED[:1], ("terminated", "lost")], "ready")]),
    ("a state that is not acknowledged", [stored("b", STARTED[:2]), kept("b", "ready", 1)]),
    ("a late end under a fault", [DRONE_FAULT, *terminated(1, 100.0), life("b", 1.0, 106.0, 7)]),
    ("a process killed at its deadline", [LONG_FAULT, life("b", 1.0, 143.0, 7)]),
    ("a process of another drone", [LONG_FAULT, life("b", 1.0, 148.0, 7, host="drone-2")]),
    ("a drone that came back in time", [LONG_FAULT, FaultEnded(130.0, 1), life("b", 1.0, 200.0, 7)]),
    ("a proxy without controller", [*FAULT, *connected(1, 1.0, "b"), *revoked(2, 100.0), *read(3, 190.0)]),
    ("a token that is issued again", [*revoked(1, 10.0), *connected(2, 11.0, "b"), *read(3, 12.0)]),
    ("a token that another user has", [*connected(1, 1.0, "c"), *revoked(2, 10.0), *read(3, 12.0)]),
    ("a run that was interrupted", [*connected(1, 1.0, "b", spawned=True), life("b", 1.0, 2.0, 7)]),
]


@pytest.mark.parametrize(("guarantee", "text", "records"), WRONG, ids=lambda value: str(value)[:40])
def test_a_broken_guarantee_is_found(guarantee: int, text: str, records: list[Record]) -> None:
    found = [violation for violation in check(History(records)) if violation.guarantee == guarantee]
    assert found, f"guarantee {guarantee}"
    assert text in found[0].text


@pytest.mark.parametrize("records", [records for _, records in RIGHT], ids=[name for name, _ in RIGHT])
def test_a_sound_history_has_no_violation(records: list[Record]) -> None:
    assert check(History(records)) == []


def test_each_guarantee_has_a_history_that_breaks_it() -> None:
    assert {number for number, _, _ in WRONG} == set(GUARANTEES) == set(range(1, 8))


def test_an_excerpt_has_the_records_and_the_faults_before_them() -> None:
    history = History([*SOUND, life("d", 100.0, 120.0, 9), *FAULT, FaultBegan(5.0, 2, 1, "program killed", "drone-1")])
    violation = next(each for each in check(history) if each.guarantee == 1)
    kinds = [type(record).__name__ for record in excerpt(history, violation)]
    assert kinds == ["FaultBegan", "Life", "FaultBegan", "Life"]


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_history(tmp_path / "history.jsonl", SOUND)
    assert check(read_history(tmp_path / "history.jsonl")) == []
    assert sorted(map(repr, read_history(tmp_path / "history.jsonl").records)) == sorted(map(repr, SOUND))
