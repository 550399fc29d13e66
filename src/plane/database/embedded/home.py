"""The folders of the embedded PostgreSQL's data and socket, where its account can use them.

If the account cannot use the requested folder, the data is in another one (its home), and the requested folder has
links to it. A later start removes a home whose requested folder was deleted.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

import structlog

from plane.database.embedded.account import Account
from plane.decisions.database.server_folders import HOME_PREFIX, data_candidates, socket_candidates
from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError

__all__ = ["server_home", "serving_pid", "socket_folder"]

# sockaddr_un holds 107 bytes and PostgreSQL's file name has 14.
MAX_SOCKET_FOLDER_BYTES = 107 - len("/.s.PGSQL.5432")
# A file in a home: device and path of the requested folder.
ORIGIN = "origin"
# A path has at most 4,096 bytes.
MAX_ORIGIN_BYTES = 4_200

log = structlog.get_logger("plane.database")


def server_home(folder: Path, account: Account | None) -> Path:
    """Return the folder of the data: ``folder``, or the home that its links point to.

    Raises:
        ConfigurationError: the account can use none; the message has the reasons.
    """
    if account is None:
        return folder
    _remove_orphans()
    data = folder / "data"
    linked = data.readlink().parent if data.is_symlink() else None
    if linked is not None and linked.name.startswith(HOME_PREFIX):
        if linked.is_dir():
            _own_folder(linked, account)
            return linked
        log.warning("database folder is missing; starting with an empty one", folder=str(linked))
    else:
        failure = account.cannot_enter(folder)
        if failure is None:
            return folder
        if os.path.lexists(data):
            raise ConfigurationError(
                f"PostgreSQL runs as user {account.uid}, who owns {data} but cannot enter {folder} ({failure}). "
                "Let others pass its parent folders (chmod o+x), or choose another folder with --data-dir"
            )
    name = f"{HOME_PREFIX}{_short_hash(folder)}"
    home = _first_usable(data_candidates(os.environ.get("TMPDIR")), name, account)
    _write_origin(home, folder)
    for entry in ("data", "log"):
        (folder / entry).unlink(missing_ok=True)
        (folder / entry).symlink_to(home / entry)
    return home


def socket_folder(home: Path, account: Account | None) -> Path:
    """Return a folder for the server's socket with a path that is short enough.

    Raises:
        ConfigurationError: there is none; the message has the reason for each that was tried.
    """
    folder = home / "socket"
    if len(os.fsencode(folder)) <= MAX_SOCKET_FOLDER_BYTES:
        _own_folder(folder, account)
        return folder
    return _first_usable(socket_candidates(os.environ.get("TMPDIR")), f"plane-{_short_hash(home)}", account)


def _first_usable(candidates: Iterable[str], name: str, account: Account | None) -> Path:
    """Create a folder for the server in the first candidate that works.

    Raises:
        ConfigurationError: none works; the message has the reason for each.
    """
    failures = []
    for folder in (Path(below) / name for below in candidates):
        if (failure := _unusable(folder, account)) is None:
            return folder
        failures.append(f"  {folder}: {failure}")
    raise ConfigurationError(
        "no folder for the embedded PostgreSQL; make one of these usable, choose another with --data-dir, or name a "
        "running PostgreSQL with --db:\n" + "\n".join(failures)
    )


def _unusable(folder: Path, account: Account | None) -> str | None:
    """Create the folder; return why it cannot be used, or None if it can."""
    if len(os.fsencode(folder)) > MAX_SOCKET_FOLDER_BYTES:
        return "the path is too long for a Unix socket"
    try:
        _own_folder(folder, account)
    except (OSError, ConfigurationError) as error:
        return error_reason(error)
    return None if account is None else account.cannot_enter(folder)


def _remove_orphans() -> None:
    """Remove homes whose requested folder was deleted, for example with its checkout."""
    for below in data_candidates(os.environ.get("TMPDIR")):
        for home in Path(below).glob(f"{HOME_PREFIX}*"):
            if _is_orphan(home):
                shutil.rmtree(home, ignore_errors=True)


def _write_origin(home: Path, folder: Path) -> None:
    note = home / ORIGIN
    note.unlink(missing_ok=True)
    # Links are not followed, since the home belongs to the server's account.
    descriptor = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"%d %s" % (folder.stat().st_dev, os.fsencode(folder)))


def _is_orphan(home: Path) -> bool:
    try:
        # Every user may create files in these folders. Links are not followed, opening does not block, and only files
        # of root count.
        descriptor = os.open(home / ORIGIN, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            entry = os.fstat(descriptor)
            if entry.st_uid != os.geteuid() or not stat.S_ISREG(entry.st_mode):
                return False
            device, _, origin = file.read(MAX_ORIGIN_BYTES).partition(b" ")
        folder = Path(os.fsdecode(origin))
        if os.path.lexists(folder / "data") or serving_pid(home / "data") is not None:
            return False
        # If the file system differs from the recorded one, the folder was not deleted: its file system is not mounted.
        return next(path for path in folder.parents if path.exists()).stat().st_dev == int(device)
    except (OSError, ValueError):
        return False


def serving_pid(data: Path) -> int | None:
    """Return the process that serves ``data``, if any. Checks its working directory, since process ids are reused."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        working_folder = Path(f"/proc/{pid}/cwd").readlink()
    except (OSError, ValueError):
        return None
    return pid if working_folder == data.resolve() else None


def _short_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _own_folder(path: Path, account: Account | None) -> None:
    """Make ``path`` a private folder of the server's account."""
    path.mkdir(mode=0o700, exist_ok=True)
    owner = path.lstat().st_uid
    if path.is_symlink() or owner not in (os.geteuid(), account and account.uid):
        raise ConfigurationError(f"{path} belongs to user {owner}; remove it, or choose another folder with --data-dir")
    if account is not None:
        account.own(path)
