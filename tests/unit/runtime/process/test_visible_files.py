"""What an isolated backend sees of the machine's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from plane.decisions.backends.folder_access import FolderMode
from plane.runtime.process import visible_files
from plane.runtime.process.backend_user import UserIds
from plane.runtime.process.visible_files import can_execute, first_inaccessible_folder, view_of

OTHER = UserIds(54321, 54321)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that its owner alone may enter, and nothing private above it."""
    monkeypatch.setattr(visible_files, "PRIVATE", (str(tmp_path / "private"),))
    for folder in (tmp_path, *tmp_path.parents[:2]):
        # pytest makes them for one user alone.
        if not folder.stat().st_mode & 0o001:
            monkeypatch.setattr(visible_files, "_mode", _opened(tmp_path))
    home = tmp_path / "home"
    (home / "code").mkdir(parents=True)
    home.chmod(0o700)
    (home / "code/program").write_text("#!/bin/sh\n")
    (home / "code/program").chmod(0o755)
    return home


def _opened(tmp_path: Path) -> Callable[[Path], FolderMode]:
    real = visible_files._mode

    def mode(path: Path) -> FolderMode:
        found = real(path)
        return found._replace(mode=0o755) if tmp_path.is_relative_to(path) else found

    return mode


def test_an_inaccessible_folder_is_masked_and_exposed_folders_below_it_are_shown(home: Path) -> None:
    view = view_of([home / "code"], [], OTHER)
    assert view.masked == [str(home)]
    assert view.exposed == [str(home / "code")]
    assert view.parents() == []
    assert view.shows(home / "code/program")
    assert not view.shows(home / "other")
    program = str(home / "code/program")
    assert can_execute(program, OTHER, view)
    assert not can_execute(program, OTHER, view_of([], [], OTHER))
    assert not can_execute(program, OTHER, None)
    assert first_inaccessible_folder(home / "code", OTHER) == home


def test_the_drones_own_user_needs_no_masks(home: Path) -> None:
    view = view_of([home / "code"], [], None)
    assert view.masked == view.exposed == []
    assert view.shows(home / "other")


def test_hidden_paths_are_hidden_below_an_exposed_folder_too(home: Path) -> None:
    (home / "code/data").mkdir()
    (home / "code/data/store").touch()
    (home / "code/keys").touch()
    hidden = [home / "code/data/store", home / "code/data", home / "code/keys", home / "absent", home / "elsewhere"]
    view = view_of([home / "code"], hidden, OTHER)
    assert view.hidden == {str(home / "code/data"): False, str(home / "code/keys"): True}
    assert not view.shows(home / "code/data/store")


def test_a_path_closed_by_its_modes_needs_no_mount_unless_it_is_exposed(home: Path) -> None:
    """The home lets nobody else pass."""
    (home / "store").touch()
    (home / "code/own").touch(mode=0o600)
    (home / "code/all").touch(mode=0o644)
    hidden = [home / "store", home / "code/own", home / "code/all"]
    assert view_of([], hidden, OTHER).hidden == {}
    assert view_of([home / "code"], hidden, OTHER).hidden == {str(home / "code/all"): True}
    assert view_of([], hidden, None).hidden == dict.fromkeys(map(str, sorted(hidden)), True)
