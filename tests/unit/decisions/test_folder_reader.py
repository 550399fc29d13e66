from __future__ import annotations

from plane.decisions.folder_reader import FolderMode, needed_user

TOP = FolderMode(0, 0, 0o755)
PRIVATE_OF_ROOT = FolderMode(0, 0, 0o700)
HOME = FolderMode(1000, 1000, 0o700)


def test_root_passes_its_own_folders_and_open_ones_of_others() -> None:
    for folder in (PRIVATE_OF_ROOT, HOME._replace(mode=0o711), FolderMode(1000, 0, 0o710)):
        assert needed_user([TOP, folder]) is None


def test_the_owner_of_a_private_folder_is_needed() -> None:
    assert needed_user([TOP, HOME, HOME._replace(uid=1001)]) == HOME
    # Others may, but the group, to which root belongs, may not.
    group = FolderMode(1000, 0, 0o701)
    assert needed_user([TOP, group]) == group
