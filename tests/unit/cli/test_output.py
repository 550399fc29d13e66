from __future__ import annotations

import pytest

from plane.cli.output import console, duration, entry_text, key_text, print_line, show, table, time_text
from plane.protocol.backend_state import BackendStatus, BackendStatusStreamEntry, TerminationKind, TerminationReason
from plane.protocol.keys import KeyConfig
from plane.protocol.times import DbTime


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, None), (0, "0 s"), (119.9, "119 s"), (120, "2 min"), (7200, "2 h"), (86400 * 3, "3 d"), (-150, "-2 min")],
)
def test_durations_as_people_say_them(seconds: float | None, text: str | None) -> None:
    assert duration(seconds) == text


def test_times_are_utc() -> None:
    assert time_text(DbTime(1795479696455)) == "2026-11-24 00:21:36Z"


def test_what_comes_from_elsewhere_is_no_markup() -> None:
    assert key_text(KeyConfig(name="[red]x", namespace="n")) == "n/\\[red]x"
    entry = BackendStatusStreamEntry(
        status=BackendStatus.TERMINATED,
        time=DbTime(0),
        termination_kind=TerminationKind.HARD,
        termination_reason=TerminationReason.LOST,
        exit_error=True,
        message="[bold]oops",
    )
    assert entry_text(entry).endswith("hard, lost, exit error, \\[bold]oops")


def test_a_terminal_obeys_nothing_that_comes_from_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    clipboard = "a\x1b]52;c;aGk=\x07\rb"
    console().print(f"[bold]{clipboard}[/bold]")
    show(table(["KEY", clipboard], [[key_text(KeyConfig(name=f"{clipboard}\n2026-11-29")), clipboard]]))
    print_line(f"{clipboard}\nx")
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert printed.replace("\n", "").isprintable()
    assert printed.count(r"a\x1b]52;c;aGk=\x07\rb") == 5
    assert r"b\n2026-11-29" in printed
