"""Choose the user that a backend runs as.

A drone that runs as root gives its backends to an unprivileged user. Any other drone runs them as itself.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import NamedTuple

from plane.protocol.errors import ConfigurationError
from plane.runtime.base import BackendFailed

__all__ = ["UserIds", "backend_user", "may_drop_bounding_set", "user_ids"]

# Used if the machine has it; otherwise nobody, which other programs may use too.
DEDICATED_USER = "plane-backend"
# For a machine without the name nobody: the id that Linux shows for unknown users.
NOBODY = 65534
CAP_SETPCAP = 8


class UserIds(NamedTuple):
    """User and group ids to drop to."""

    uid: int
    gid: int


def backend_user(name: str | None) -> UserIds | None:
    """Return the ids for backends whose executable names no user; None: they run as the drone does.

    Args:
        name: the value of ``--backend-user``, a name or an id.

    Raises:
        ConfigurationError: the user does not exist, or this process may not become it.
    """
    if os.geteuid() != 0:
        if name is not None and (entry := _entry(name)) is not None and entry.pw_uid == os.geteuid():
            return None
        if name is not None:
            raise ConfigurationError(f"--backend-user: only root can run backends as {name!r}; leave the option out")
        return None
    if name is None:
        entry = _entry(DEDICATED_USER) or _entry("nobody")
        return UserIds(NOBODY, NOBODY) if entry is None else UserIds(entry.pw_uid, entry.pw_gid)
    entry = _entry(name)
    if entry is None:
        raise ConfigurationError(f"--backend-user: there is no user {name!r} on this machine; create it with useradd")
    return None if entry.pw_uid == 0 else UserIds(entry.pw_uid, entry.pw_gid)


def user_ids(user: str | None, default: UserIds | None) -> UserIds | None:
    """Return the ids that an executable runs with; None: those of the drone.

    Args:
        user: the user of the executable; None: it names none.
        default: the result of `backend_user`.

    Raises:
        BackendFailed: the user does not exist, or this drone may not become it.
    """
    if user is None:
        return default
    entry = _entry(user)
    if entry is None:
        raise BackendFailed(f"executable.user: there is no user {user!r} on the drone's machine")
    if entry.pw_uid == os.geteuid():
        if default is not None:
            raise BackendFailed(
                f"executable.user: this drone runs no backends as {user!r}; name another user, or start the drone with "
                f"--backend-user {user}"
            )
        return None
    if os.geteuid() != 0:
        raise BackendFailed(f"executable.user: only a drone that runs as root can run backends as {user!r}")
    return UserIds(entry.pw_uid, entry.pw_gid)


def may_drop_bounding_set() -> bool:
    """Return whether this process may empty the capability bounding set; root in a container may lack CAP_SETPCAP."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & 1 << CAP_SETPCAP)
    return False


def _entry(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, ValueError, OverflowError):
        return None
