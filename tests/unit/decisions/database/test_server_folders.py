from __future__ import annotations

import pytest

from plane.decisions.database.server_folders import (
    data_candidates,
    orphaned_copies,
    program_candidates,
    socket_candidates,
)


@pytest.mark.parametrize("candidates", [data_candidates, program_candidates, socket_candidates])
def test_each_folder_is_tried_once_and_tmpdir_is_one_of_them(candidates: object) -> None:
    assert callable(candidates)
    for temporary in (None, "", "/tmp", "/mine", "relative"):
        folders = candidates(temporary)
        assert len(set(folders)) == len(folders) >= 3
        assert all(folder.startswith("/") for folder in folders)
    assert "/mine" in candidates("/mine")


def test_copies_of_other_versions_and_unfinished_ones_are_orphaned() -> None:
    current = "plane-postgresql-18.6-aa"
    others = ["plane-postgresql-17.1-bb", f"{current}.unfinished-1", "plane-postgresql-18.6-cc"]
    assert orphaned_copies([*others, current, "plane-postgres-data", "x"], current) == sorted(others)
