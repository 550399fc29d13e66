"""Which of the machine's files do isolated backends see, and which can a user reach?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plane.decisions.backends.folder_access import FolderMode, first_inaccessible, may_execute
from plane.runtime.process.backend_user import UserIds

__all__ = ["PRIVATE", "FileView", "can_execute", "first_inaccessible_folder", "view_of"]

# Folders that each isolated backend has of its own, empty.
PRIVATE = ("/tmp", "/var/tmp", "/run")  # noqa: S108
GROUP_AND_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class FileView:
    """What an isolated backend sees of the machine, besides what everybody does.

    Attributes:
        masked: folders that the backend's user may not enter, and that are replaced by an empty one.
        exposed: folders that are shown although they are below a private or a masked one.
        hidden: files (True) and folders that cannot be read, although modes may allow it.
    """

    masked: Sequence[str] = ()
    exposed: Sequence[str] = ()
    hidden: Mapping[str, bool] = field(default_factory=dict)

    def ways(self) -> list[str]:
        """Return the folders to make on the way from the private and masked ones to the exposed ones."""
        covering = (*PRIVATE, *self.masked)
        parents = {parent for path in self.exposed for parent in Path(path).parents}
        return sorted(
            str(parent)
            for parent in parents
            if str(parent) not in covering and _is_below(parent, covering) and not _is_below(parent, self.exposed)
        )

    def exposed_folder(self, path: Path) -> Path | None:
        """Return the exposed folder that the path is in, which is reached by a mount; None: it is in none."""
        return next((Path(folder) for folder in self.exposed if path.is_relative_to(folder)), None)

    def shows(self, path: str | Path) -> bool:
        """Return whether a path leads to the same file as outside."""
        path = Path(path)
        if _is_below(path, self.hidden):
            return False
        covered = _is_below(path, PRIVATE) or _is_below(path, self.masked)
        return not covered or _is_below(path, self.exposed)


def view_of(exposed: Iterable[Path], hidden: Iterable[Path], user: UserIds | None) -> FileView:
    """Return what a backend of the user sees; None: of the drone's own user.

    A folder that is exposed below one that the user may not enter, such as a home, is shown alone of it.
    """
    exposed = sorted(exposed)
    impassable = {first_inaccessible_folder(path, user) for path in exposed} if user is not None else set()
    masked = sorted(str(folder) for folder in impassable if folder is not None and not _is_below(folder, PRIVATE))
    covering = (*PRIVATE, *masked)
    # A folder of a private one is shown by a mount, whatever its folder on the machine lets pass.
    view = FileView(masked, [str(path) for path in exposed if _is_below(path, covering)])
    there: dict[str, bool] = {}
    for path in sorted(hidden):
        # What is below a hidden folder is gone already. Each mount takes a fifth of a millisecond of a start.
        if view.shows(path) and path.exists() and not _is_below(path, there) and not _is_closed_to(path, user, view):
            there[str(path)] = path.is_file()
    return FileView(view.masked, view.exposed, there)


def _is_closed_to(path: Path, user: UserIds | None, view: FileView) -> bool:
    """Return whether modes alone keep the user from what is there: it, or a folder on the way, is its owner's only.

    Where group and others have no permission an access control list gives none either, acl(5).
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
    """Return the first folder on the way to the path (from ``below`` on, if given) that does not let the user pass."""
    folders = [folder for folder in reversed(path.parents) if below is None or folder.is_relative_to(below)]
    try:
        index = first_inaccessible((_mode(folder) for folder in folders), *user)
    except OSError:
        return None
    return None if index is None else folders[index]


def can_execute(program: str, user: UserIds | None, view: FileView | None) -> bool:
    """Return whether a backend finds the program and may execute it, as far as modes say.

    Args:
        user: None: the drone's own.
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
    """As `Path.is_relative_to`, which takes a tenth of a millisecond for a dozen of folders, at each start."""
    whole = f"{path}/"
    return any(whole.startswith(f"{folder.rstrip('/')}/") for folder in folders)
