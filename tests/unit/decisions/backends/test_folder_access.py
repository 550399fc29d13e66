from __future__ import annotations

import pytest

from plane.decisions.backends.folder_access import FolderMode, first_inaccessible, may_execute

TOP = FolderMode(0, 0, 0o755)
PRIVATE_OF_ROOT = FolderMode(0, 0, 0o700)
HOME = FolderMode(1000, 1000, 0o700)


def test_the_first_inaccessible_folder_is_found() -> None:
    assert first_inaccessible([TOP, PRIVATE_OF_ROOT, HOME], 65534, 65534) == 1
    assert first_inaccessible([TOP, PRIVATE_OF_ROOT, HOME], 0, 0) == 2
    assert first_inaccessible([TOP, HOME], 1000, 1000) is None


@pytest.mark.parametrize(
    ("mode", "allowed"), [(0o100, (True, False, False)), (0o010, (False, True, False)), (0o001, (False, False, True))]
)
def test_the_first_matching_class_decides(mode: int, allowed: tuple[bool, ...]) -> None:
    entry = FolderMode(1000, 2000, mode)
    users = ((1000, 2000), (1001, 2000), (1001, 2001))
    assert tuple(may_execute(entry, *user) for user in users) == allowed
