"""Output in files: bounded, in order, found again by time; also while processes write faster than is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plane.protocol import codec
from plane.protocol.logs import MAX_PAGE_BYTES, LogLine
from plane.runtime.logs.collector import LogCollector, LogsUnavailable
from plane.runtime.logs.files import LINE_LIMIT_BYTES, LogFiles
from plane.runtime.logs.output_capture import READ_BYTES, OutputCapture, open_for_output

LINES = st.lists(st.binary(max_size=300).filter(lambda line: b"\n" not in line), max_size=200)


def read_all(files: LogFiles) -> list[LogLine]:
    """Page after page."""
    lines: list[LogLine] = []
    while page := files.read(lines[-1].time_ns if lines else None, None):
        assert len(codec.encode(page)) <= MAX_PAGE_BYTES + 2
        lines += page
    return lines


@given(LINES, st.integers(0, 300))
@settings(deadline=None)
def test_what_is_written_is_read(lines: list[bytes], tail: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        files = LogFiles(Path(folder), 1_000_000)
        for line in lines:
            files.append([line])
        stored = read_all(files)
        assert len(stored) == len(lines)
        times = [line.time_ns for line in stored]
        assert times == sorted(set(times))
        shown = [line.decode(errors="replace").rstrip("\r") for line in lines]
        assert [len(line.text) for line in stored] == [len(text) for text in shown]
        first_of_tail = files.read(None, tail)[:1]
        assert first_of_tail == (stored[-tail:][:1] if tail else [])
        # Another reader, as after a restart, sees the same, and goes on after the last.
        again = LogFiles(Path(folder), 1_000_000)
        assert read_all(again) == stored
        again.append([b"more"])
        assert read_all(again)[-1].text == "more"


def test_it_is_bounded_and_the_newest_is_kept(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, 100_000)
    for number in range(20_000):
        files.append([f"line {number}".encode()])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 110_000
    lines = [line.text for line in read_all(files)]
    assert lines[-1] == "line 19999"
    assert lines == [f"line {number}" for number in range(20_000 - len(lines), 20_000)]
    assert [line.text for line in files.read(None, 3)] == lines[-3:]
    assert files.last_text(30).splitlines() == lines[-2:]


def test_long_lines_are_cut_and_control_characters_replaced(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, 1_000_000)
    files.append([b"x" * (LINE_LIMIT_BYTES + 5), b"a\0b\tc\x1b[0m", "ü".encode(), b"\xff"])
    texts = [line.text for line in read_all(files)]
    assert [len(text) for text in texts[:2]] == [LINE_LIMIT_BYTES, 5]
    assert texts[2:] == ["a�b\tc\x1b[0m", "ü", "�"]
    files.append([b"\x1b" * LINE_LIMIT_BYTES])
    assert len(codec.encode(files.read(read_all(files)[-2].time_ns, None))) <= MAX_PAGE_BYTES


def test_a_line_that_a_crash_has_cut_hides_no_other(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, 1_000_000)
    files.append([b"whole"])
    with (tmp_path / "log").open("ab") as log:
        log.write(b"17000")
    again = LogFiles(tmp_path, 1_000_000)
    assert [line.text for line in again.read(None, None)] == ["whole"]
    again.append([b"later"])
    assert [line.text for line in read_all(again)] == ["whole", "later"]


def test_a_spool_is_read_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    output = open_for_output(path)
    spool = OutputCapture(path, 10_000_000)
    os.write(output, b"one\ntwo\nunfin")
    assert spool.read() == [b"one", b"two"]
    os.write(output, b"ished\n")
    assert spool.read() == [b"unfinished"]
    for _ in range(50):
        os.write(output, b"y" * 99_999 + b"\n")
    while spool.has_more:
        spool.read()
    assert path.stat().st_blocks * 512 < 3 * READ_BYTES
    # The next reader goes on where this one was.
    spool.close()
    os.write(output, b"later\n")
    again = OutputCapture(path, 10_000_000)
    assert again.read() == [b"later"]
    assert again.read(to_the_end=True) == []
    # Whoever writes may also cut the file.
    os.truncate(path, 0)
    assert again.read() == []
    os.write(output, b"after the cut")
    assert again.read(to_the_end=True) == [b"after the cut"]
    again.close()
    os.close(output)


def test_a_flood_is_dropped_and_said(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    output = open_for_output(path)
    spool = OutputCapture(path, 1_000_000)
    for _ in range(30):
        os.write(output, (b"z" * 99 + b"\n") * 1000)
    lines = spool.read()
    assert b"bytes of output came too fast and were dropped" in lines[0]
    assert not spool.has_more
    spool.close()
    os.close(output)


async def test_readers_are_told_why_there_is_nothing(tmp_path: Path) -> None:
    keeper = LogCollector(tmp_path / "backends")
    with pytest.raises(LogsUnavailable, match="never ran here"):
        await keeper.read("unknown", None, None, 0)
    os.close(open_for_output(keeper.capture_file("known")))
    keeper.follow("known")
    page = await keeper.read("known", None, 5, 0.01)
    assert (page.lines, page.ended) == ([], False)
    keeper.capture_file("known").write_bytes(b"last words")
    assert keeper.finish("known") == "last words"
    page = await keeper.read("known", None, None, 0)
    assert ([line.text for line in page.lines], page.ended) == (["last words"], True)
    keeper.close()
