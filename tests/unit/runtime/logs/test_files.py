"""Stored output is bounded, ordered and found by time."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from plane.protocol import codec
from plane.protocol.logs import MAX_PAGE_BYTES, LogLine
from plane.runtime.logs.files import LogFiles
from plane.runtime.logs.output_capture import LINE_LIMIT_BYTES

LINES = st.lists(st.binary(max_size=300).filter(lambda line: b"\n" not in line), max_size=200)


def read_all(files: LogFiles) -> list[LogLine]:
    """Read page after page."""
    lines: list[LogLine] = []
    while page := files.read(lines[-1].time_ns if lines else None, None):
        assert len(codec.encode(page)) <= MAX_PAGE_BYTES + 2
        lines += page
    return lines


@given(LINES, st.integers(0, 300))
@settings(deadline=None)
def test_stored_lines_are_read_in_order(lines: list[bytes], tail: int) -> None:
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
        # Another reader, as after a restart, reads the same, and appends after the last line.
        again = LogFiles(Path(folder), 1_000_000)
        assert read_all(again) == stored
        again.append([b"more"])
        assert read_all(again)[-1].text == "more"


def test_the_files_are_bounded_and_retain_the_newest_lines(tmp_path: Path) -> None:
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


def test_a_line_cut_by_a_crash_hides_no_other_line(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, 1_000_000)
    files.append([b"whole"])
    with (tmp_path / "log").open("ab") as log:
        log.write(b"17000")
    again = LogFiles(tmp_path, 1_000_000)
    assert [line.text for line in again.read(None, None)] == ["whole"]
    again.append([b"later"])
    assert [line.text for line in read_all(again)] == ["whole", "later"]
