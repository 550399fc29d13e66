"""Somebody follows the tutorial on a bare machine: pastes each block, and sees what the page shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.clusters import until
from harness.machines import CHECKOUT, Machine, Running, copy_checkout, debian, machine, wheels
from harness.pages import blocks, matches

pytestmark = pytest.mark.timeout(600)

PAGES = ("first-cluster", "your-application", "editor")
HOME = "/home/ada"
PLACE = f"{HOME}/plane"
LIBRARIES = "/opt/libraries"
ENVIRONMENT = {
    "HOME": HOME,
    "LANG": "C.UTF-8",
    # A machine of the tests has no network.
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": LIBRARIES,
    "PIP_NO_COMPILE": "1",
    "PYTHONUNBUFFERED": "1",
}
# Of a site that has just been started.
SERVES_WITHIN_S = 20.0


class Reader:
    """Somebody who follows pages, with one terminal for single commands and others for what runs on."""

    def __init__(self, there: Machine, logs: Path, stack: ExitStack) -> None:
        self._there = there
        self._logs = logs
        self._stack = stack
        self._terminals: dict[str, tuple[Running, ExitStack]] = {}
        self._printed = ""
        self._in_terminal: Running | None = None

    def follow(self, page: Path) -> None:
        """Paste each block, and compare what it prints."""
        for block in blocks(page):
            match block.kind, block.title:
                case "sh", "":
                    self._run(block.text)
                case "sh", terminal:
                    self._start(terminal, block.text)
                case "text", "output":
                    self._sees(block.text)
                case _, name if name:
                    target = self._there.root / PLACE.lstrip("/") / name
                    target.write_text(block.text)

    def _run(self, script: str) -> None:
        self._in_terminal = None

        def succeeds() -> bool:
            try:
                self._printed = self._there.sh(f"set -e\n{script}", user="ada", cwd=PLACE, **ENVIRONMENT)
            except AssertionError as error:
                self._printed = str(error)
                return False
            return True

        # What was started in another terminal may not serve yet.
        try:
            until(succeeds, SERVES_WITHIN_S)
        except AssertionError:
            pytest.fail(self._printed)

    def _start(self, terminal: str, command: str) -> None:
        if terminal in self._terminals:
            running, ended = self._terminals.pop(terminal)
            running.interrupt()
            ended.close()
        stack = self._stack.enter_context(ExitStack())
        log = self._logs / f"{terminal.replace(' ', '-')}-{len(list(self._logs.iterdir()))}"
        self._in_terminal = stack.enter_context(
            self._there.running(("sh", "-c", f"exec {command}"), log, cwd=PLACE, environment=ENVIRONMENT, user="ada")
        )
        self._terminals[terminal] = self._in_terminal, stack

    def _sees(self, expected: str) -> None:
        if self._in_terminal is not None:
            last = expected.strip().splitlines()[-1]
            self._printed = self._in_terminal.says(last)
        assert matches(expected, self._printed), f"expected:\n{expected}\nprinted:\n{self._printed}"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Machine]:
    """A bare Debian 13, with a checkout that belongs to a user."""
    with machine(tmp_path / "machine", debian("trixie")) as there:
        there.sh("useradd --create-home ada")
        there.copy(wheels("3.13"), LIBRARIES)
        copy_checkout(there.root / PLACE.lstrip("/"))
        there.sh(f"chown -R ada: {PLACE}")
        yield there


def test_each_block_of_the_tutorial_does_what_the_page_shows(bare: Machine, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    with ExitStack() as stack:
        reader = Reader(bare, logs, stack)
        for page in PAGES:
            reader.follow(CHECKOUT / "docs" / "tutorial" / f"{page}.md")


def test_pages_show_at_least_one_block_each() -> None:
    for page in PAGES:
        kinds = [block.kind for block in blocks(CHECKOUT / "docs" / "tutorial" / f"{page}.md")]
        assert "sh" in kinds
        assert "text" in kinds
