"""Captured output is read while it is written, bounded while it is unread, and drops are reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plane.runtime.logs.output_capture import READ_BYTES, OutputCapture, bound, open_for_output

LIMIT = 1024 * 1024
LINE = b"0123456789abcde\n"


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def append(path: Path, data: bytes) -> None:
    descriptor = open_for_output(path)
    os.write(descriptor, data)
    os.close(descriptor)


def read_all(capture: OutputCapture) -> list[bytes]:
    lines = []
    while capture.has_more:
        lines += capture.read()
    return lines


def test_an_unread_capture_is_bounded_and_retains_its_end(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    for _ in range(10):
        append(path, LINE * 60_000)
        bound(path, LIMIT)
        assert allocated(path) <= LIMIT
    append(path, b"last\n")
    lines = read_all(OutputCapture(path, 100 * LIMIT))
    assert lines[-1] == b"last"
    assert not any(b"\0" in line for line in lines)
    assert allocated(path) <= READ_BYTES


def test_a_stopped_reader_reports_how_much_was_dropped(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    append(path, LINE + b"half a li")
    capture = OutputCapture(path, 100 * LIMIT)
    assert capture.read() == [LINE[:-1]]
    append(path, b"ne\n" + LINE * 200_000)
    bound(path, LIMIT)
    size = path.stat().st_size
    # The first part of the unfinished line comes first, then the report, then the rest.
    half, dropped, *rest = read_all(capture)
    assert half == b"half a li"
    remaining = sum(len(line) + 1 for line in rest)
    assert (
        dropped
        == f"[{size - len(LINE) - len(half) - remaining} bytes of output came too fast and were dropped]".encode()
    )
    assert LIMIT // 2 <= remaining <= LIMIT
    assert set(rest[1:]) == {LINE[:-1]}


def test_a_hole_in_the_middle_is_reported_too(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    append(path, LINE)
    capture = OutputCapture(path, 100 * LIMIT)
    # The process may do that: it owns the file.
    os.truncate(path, LIMIT)
    append(path, b"after\n")
    lines = read_all(capture)
    assert lines[0] == LINE[:-1]
    assert lines[-1] == b"after"
    assert b"bytes of output" in lines[-2]


def test_a_file_that_is_no_capture_is_not_changed(tmp_path: Path) -> None:
    assert bound(tmp_path / "none", LIMIT) == 0
    precious = tmp_path / "precious"
    precious.write_bytes(LINE * 200_000)
    (tmp_path / "link").symlink_to(precious)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "."):
        assert bound(tmp_path / name, LIMIT) == 0
    # A second name of a file.
    (tmp_path / "name").hardlink_to(precious)
    assert bound(tmp_path / "name", LIMIT) == 0
    assert precious.read_bytes() == LINE * 200_000


def test_blocks_allocated_behind_the_end_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 20 * LIMIT)
        os.truncate(path, 10 * LIMIT)
    bound(path, LIMIT)
    assert allocated(path) <= LIMIT


def test_a_capture_is_truncated_where_the_file_system_has_no_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plane.runtime.logs.output_capture._punch", lambda descriptor, end: False)
    path = tmp_path / "spool"
    append(path, LINE * 200_000)
    assert bound(path, LIMIT) > LIMIT
    assert path.stat().st_size == 0


def test_a_capture_is_read_and_its_space_is_freed(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    output = open_for_output(path)
    capture = OutputCapture(path, 10_000_000)
    os.write(output, b"one\ntwo\nunfin")
    assert capture.read() == [b"one", b"two"]
    os.write(output, b"ished\n")
    assert capture.read() == [b"unfinished"]
    for _ in range(50):
        os.write(output, b"y" * 99_999 + b"\n")
    while capture.has_more:
        capture.read()
    assert path.stat().st_blocks * 512 < 3 * READ_BYTES
    # The next reader continues where this one was.
    capture.close()
    os.write(output, b"later\n")
    again = OutputCapture(path, 10_000_000)
    assert again.read() == [b"later"]
    assert again.read(to_the_end=True) == []
    # The process may also truncate the file.
    os.truncate(path, 0)
    assert again.read() == []
    os.write(output, b"after the cut")
    assert again.read(to_the_end=True) == [b"after the cut"]
    again.close()
    os.close(output)


def test_a_dropped_flood_is_reported_in_the_output(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    output = open_for_output(path)
    capture = OutputCapture(path, 1_000_000)
    for _ in range(30):
        os.write(output, (b"z" * 99 + b"\n") * 1000)
    lines = capture.read()
    assert b"bytes of output came too fast and were dropped" in lines[0]
    assert not capture.has_more
    capture.close()
    os.close(output)
