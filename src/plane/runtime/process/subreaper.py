"""Supervises a command and everything that it starts, where there are no control groups and no bubblewrap.

Run as ``python -I -S subreaper.py STATUS_FILE -- COMMAND…``. What leaves its parent, session and environment becomes
this process's child and not init's (PR_SET_CHILD_SUBREAPER, prctl(2)), and is killed when the command ends. Then this
process ends with the command's code, or 128 + n for signal n, which it writes to the file as bubblewrap does. To kill a
backend, kill the descendants of this process, and not itself: whatever had left would be init's child then.

A process of about 10 MB for each backend: nothing but the standard library here, and little of that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["main"]

PR_SET_CHILD_SUBREAPER = 36
# What is sent to the whole session or process group is meant for the command.
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)
# As a shell's: the command cannot be executed.
NOT_EXECUTABLE, NOT_FOUND = 126, 127


def main(arguments: list[str]) -> int:
    """Run the command; returns its code when nothing that it has started runs any more."""
    status_file, separator, *command = arguments
    assert separator == "--"
    # Opened before the command runs: it may remove what it can reach.
    status = os.open(status_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        # Linux has had it since 3.4. Without it this supervises as a shell would.
        os.write(2, b"supervisor: what the command leaves behind cannot be found\n")
    # The command may signal its process group before this process has set what it ignores.
    signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
    pid = os.fork()
    if pid == 0:
        _execute(command)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    code = _until_ended(pid)
    os.write(status, b'{"exit-code": %d}\n' % code)
    _end_children()
    return code


def _execute(command: list[str]) -> None:
    """Become the command."""
    # Python ignores them; a command expects the default.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    try:
        os.execvp(command[0], command)  # noqa: S606 - as it was asked for
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


def _until_ended(pid: int) -> int:
    """Wait for the command, and for whatever else ends meanwhile; returns the command's code."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _end_children() -> None:
    """Kill what the command left behind, until there is nothing."""
    while True:
        found = _descendants()
        # Stopped before any is killed: what forks all the time would else be ahead of this all the time.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                try:
                    os.kill(pid, number)
                except OSError:
                    continue
        try:
            # Those of the ended come to this process; waits if all that is left is dying.
            os.wait()
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return


def _descendants() -> list[int]:
    found = [os.getpid()]
    for parent in found:
        try:
            with open(f"/proc/{parent}/task/{parent}/children") as children:  # noqa: PTH123 - pathlib costs 1 MB
                found += map(int, children.read().split())
        except OSError:
            continue
    return found[1:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
