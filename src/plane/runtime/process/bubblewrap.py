"""Check whether bubblewrap works on this machine, and describe the machine's root folder to it.

`process.launch` builds the command line.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL

from plane.protocol.spawn import Network, ProcessExecutable
from plane.runtime.process.launch import BubblewrapPlan, LaunchPlan, command_line, supervisor_environment
from plane.runtime.process.visible_files import FileView

__all__ = ["BWRAP", "bubblewrap_plan", "bubblewrap_works"]

PROBE_TIMEOUT_S = 5.0
# Found in the drone's own PATH. If it is missing, the first start reports the name.
BWRAP = shutil.which("bwrap") or "bwrap"


async def bubblewrap_works(timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Return whether bubblewrap is installed and may create namespaces here."""
    status = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        plan = BubblewrapPlan(program=BWRAP, status=status, root=_root_entries(), cwd="/", is_root=os.geteuid() == 0)
        command = command_line(LaunchPlan(command=["true"], setpriv="setpriv", bubblewrap=plan))
        probe = await asyncio.create_subprocess_exec(
            *command,
            env=supervisor_environment(os.environ, {}),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
            pass_fds=(status,),
        )
    except FileNotFoundError:
        return False
    finally:
        os.close(status)
    try:
        async with asyncio.timeout(timeout_s):
            return await probe.wait() == 0
    except TimeoutError:
        probe.kill()
        await probe.wait()
        return False


def bubblewrap_plan(
    executable: ProcessExecutable, status: int, mount: int | None, held: int, view: FileView
) -> BubblewrapPlan:
    """Return how an executable is isolated.

    Args:
        status: descriptor for bubblewrap's JSON status.
        mount: descriptor of the folder to mount.
        held: descriptor that stays open until the last process has ended.
    """
    return BubblewrapPlan(
        program=BWRAP,
        status=status,
        root=_root_entries(),
        cwd=executable.cwd or "/",
        mount=mount,
        held=held,
        files=view,
        own_network=executable.network is Network.NONE,
        is_root=os.geteuid() == 0,
    )


def _root_entries() -> dict[str, str | None]:
    """Return the entries of the root folder; see `BubblewrapPlan.root`."""
    with os.scandir("/") as entries:
        return {
            entry.path: os.readlink(entry.path)  # noqa: PTH115 - a third of pathlib's time, at each start
            if entry.is_symlink()
            else (None if entry.is_dir() else "")
            for entry in entries
        }
