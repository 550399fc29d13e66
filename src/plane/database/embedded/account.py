"""The account that runs the embedded PostgreSQL, and tests of its permissions.

PostgreSQL refuses to run as root. The permissions of another user depend on modes, access control lists and mount
options. This module therefore tests them by running commands instead of computing them.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError

__all__ = ["Account", "account_for"]

COMMAND_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Account:
    """The ids of a user and its group."""

    uid: int
    gid: int

    @property
    def popen(self) -> dict[str, Any]:
        """Arguments for `subprocess` that run a command as this account, without groups of the calling process."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def failure(self, command: Sequence[str | Path]) -> str | None:
        """Run a command as this account; return why it failed, or None if it succeeded."""
        try:
            done = subprocess.run(  # noqa: S603 - our own command
                command,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                **self.popen,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return error_reason(error)
        return None if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"

    def cannot_enter(self, folder: Path) -> str | None:
        """Return why this account cannot use files in ``folder``, or None if it can."""
        return self.failure(("/bin/sh", "-c", 'cd -- "$1"', "sh", folder))

    def own(self, folder: Path) -> None:
        """Give a folder to this account."""
        # The account may have replaced the folder by a link, if it owns the parent.
        os.chown(folder, self.uid, self.gid, follow_symlinks=False)


def account_for(data: Path) -> Account | None:
    """Return the account for a server with its database in ``data``; None: the account of this process.

    Raises:
        ConfigurationError: the process runs as root, and the machine has no unprivileged user.
    """
    if os.geteuid() != 0:
        return None
    owner = data.stat().st_uid if data.exists() else 0
    try:
        user = pwd.getpwuid(owner) if owner != 0 else pwd.getpwnam("nobody")
    except KeyError:
        if owner != 0:
            return Account(owner, owner)
        raise ConfigurationError(
            "PostgreSQL refuses to run as root, and this machine has no user `nobody`; "
            "run `plane dev` as another user, or name a running PostgreSQL with --db"
        ) from None
    return Account(user.pw_uid, user.pw_gid)
