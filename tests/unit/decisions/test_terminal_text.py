"""Nothing of others makes a terminal do anything."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.terminal_text import colored_line, plain_line, plain_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ünïcode ✓ 👩‍💻\tand tabs", "Ünïcode ✓ 👩‍💻\tand tabs"),
        ("two\nlines", "two\nlines"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]52;c;aGk=\x07", r"\x1b]52;c;aGk=\x07"),
        ("\x1b[2Jcleared", r"\x1b[2Jcleared"),
        ("50 %\r60 %", r"50 %\r60 %"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_controls_are_escaped_and_styles_dropped(text: str, shown: str) -> None:
    assert plain_text(text) == shown


def test_a_line_stays_one_line() -> None:
    assert plain_line("key\n2026-11-29 forged\x1b[0m") == r"key\n2026-11-29 forged"


def test_a_colored_line_keeps_its_styles_which_end_with_it() -> None:
    assert colored_line("plain") == "plain"
    assert colored_line("a\x1b[32mok\x1b[2K") == "a\x1b[32mok\\x1b[2K\x1b[0m"


# A style can be made of the pieces around another one that was removed.
@given(
    st.lists(st.sampled_from(["\x1b", "[", "31", "m", "\x1b[0m", "\x1b]0;t\x07", "\x9b", "x", "\n", "\r"])).map("".join)
)
def test_no_sequence_survives(text: str) -> None:
    assert not set(plain_line(text)) & set("\x1b\x9b\x07\n\r")
    assert not set(re.sub(r"\x1b\[\d*m", "", colored_line(text))) & set("\x1b\x9b\x07\n\r")
