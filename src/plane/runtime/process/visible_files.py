"""Determine which of the machine's files an isolated backend sees, and which a user can reach."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plane.decisions.backends.folder_access import FolderMode, first_inaccessible, may_execute
from plane.runtime.process.backend_user import UserIds

__all__ = ["PRIVATE", "FileView", "can_execute", "first_inaccessible_folder", "view_of"]

# Folders that are private to each isolated backend, and empty at its start.
PRIVATE = ("/tmp", "/var/tmp", "/run")  # noqa: S108
GROUP_AND_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class FileView:
    """How the files that an isolated backend sees differ from the machine's.

    Attributes:
        masked: folders that the backend's user may not enter, each replaced by an empty one.
        exposed: folders that are shown although they are below a private or a masked one.
        hidden: files (True) and folders (False) that cannot be read, although their modes may allow it.
    """

    masked: Sequence[str] = ()
    exposed: Sequence[str] = ()
    hidden: Mapping[str, bool] = field(default_factory=dict)

    def parents(self) -> list[str]:
        """Return the folders to create between the private and masked folders and the exposed ones."""
        covering = (*PRIVATE, *self.masked)
        found = {parent for path in self.exposed for parent in Path(path).parents}
        return sorted(
            str(parent)
            for parent in found
            if str(parent) not in covering and _is_below(parent, covering) and not _is_below(parent, self.exposed)
        )

    def exposed_folder(self, path: Path) -> Path | None:
        """Return the exposed folder that contains the path, which is reached by a mount; None if there is none."""
        return next((Path(folder) for folder in self.exposed if path.is_relative_to(folder)), None)

    def shows(self, path: str | Path) -> bool:
        """Return whether a path leads to the same file as outside the isolation."""
        path = Path(path)
        if _is_below(path, self.hidden):
            return False
        covered = _is_below(path, PRIVATE) or _is_below(path, self.masked)
        return not covered or _is_below(path, self.exposed)


def view_of(exposed: Iterable[Path], hidden: Iterable[Path], user: UserIds | None) -> FileView:
    """Return what a backend of the user sees.

    Of a folder that the user may not enter, such as a home, only the exposed folders below it are shown.

    Args:
        user: None: the drone's user.
    """
    exposed = sorted(exposed)
    inaccessible = {first_inaccessible_folder(path, user) for path in exposed} if user is not None else set()
    masked = sorted(str(folder) for folder in inaccessible if folder is not None and not _is_below(folder, PRIVATE))
    covering = (*PRIVATE, *masked)
    # A mount shows a folder below a private one, whatever the modes of its parents on the machine are.
    view = FileView(masked, [str(path) for path in exposed if _is_below(path, covering)])
    present: dict[str, bool] = {}
    for path in sorted(hidden):
        # A path below a hidden folder is hidden already. Each mount takes a fifth of a millisecond of a start.
        if view.shows(path) and path.exists() and not _is_below(path, present) and not _is_closed_to(path, user, view):
            present[str(path)] = path.is_file()
    return FileView(view.masked, view.exposed, present)


def _is_closed_to(path: Path, user: UserIds | None, view: FileView) -> bool:
    """Return whether modes alone keep the user out: the path, or a folder above it, is accessible to its owner only.

    Where group and others have no permission, an access control list grants none either, see acl(5).
    """
    if user is None:
        return False
    shown = view.exposed_folder(path)
    try:
        modes = [_mode(each) for each in (path, *path.parents) if shown is None or each.is_relative_to(shown)]
    except OSError:
        return False
    return any(mode.uid != user.uid and mode.mode & GROUP_AND_OTHERS == 0 for mode in modes)


def first_inaccessible_folder(path: Path, user: UserIds, below: Path | None = None) -> Path | None:
    """Return the first parent of the path that the user may not enter; None if the user may enter all.

    Args:
        below: the folder to begin with; None: the root.
    """
    folders = [folder for folder in reversed(path.parents) if below is None or folder.is_relative_to(below)]
    try:
        index = first_inaccessible((_mode(folder) for folder in folders), *user)
    except OSError:
        return None
    return None if index is None else folders[index]


def can_execute(program: str, user: UserIds | None, view: FileView | None) -> bool:
    """Return whether a backend sees the program and may execute it, judging by file modes.

    Args:
        user: None: the drone's user.
        view: None: not isolated.
    """
    for path in {Path(program), Path(os.path.realpath(program))}:
        if view is not None and not view.shows(path):
            return False
        if user is None:
            continue
        shown = None if view is None else view.exposed_folder(path)
        if first_inaccessible_folder(path, user, shown) is not None:
            return False
    try:
        return user is None or may_execute(_mode(Path(program)), *user)
    except OSError:
        return False


def _mode(path: Path) -> FolderMode:
    entry = path.stat()
    return FolderMode(entry.st_uid, entry.st_gid, entry.st_mode)


def _is_below(path: Path, folders: Iterable[str]) -> bool:
    """Like `Path.is_relative_to`, which takes a tenth of a millisecond for a dozen folders, at each start."""
    whole = f"{path}/"
    return any(whole.startswith(f"{folder.rstrip('/')}/") for folder in folders)
