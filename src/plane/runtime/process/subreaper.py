"""Supervise a command and all its descendants, where there are neither control groups nor bubblewrap.

Run as ``python -I -S subreaper.py STATUS_FILE -- COMMAND…``. A process that leaves its parent, session and environment
becomes a child of this process instead of init (PR_SET_CHILD_SUBREAPER, prctl(2)), and is killed when the command ends.
Then this process exits with the command's code, or 128 + n for signal n, which it writes to the file in the format of
bubblewrap. To kill a backend, kill the descendants of this process and not the process itself: init would adopt the
processes that have left their parent.

Each such backend has one of these processes of about 10 MB, so this file imports little, and only of the standard
library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["main"]

PR_SET_CHILD_SUBREAPER = 36
# Signals to the whole session or process group are meant for the command.
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)
# Exit codes of a shell for a command that cannot be executed.
NOT_EXECUTABLE, NOT_FOUND = 126, 127


def main(arguments: list[str]) -> int:
    """Run the command. Return its exit code once no descendant runs any more."""
    status_file, separator, *command = arguments
    assert separator == "--"
    # Opened before the command runs, which may delete the file.
    status = os.open(status_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        # Supported since Linux 3.4. Without it, this process supervises like a shell.
        os.write(2, b"supervisor: processes that leave the command cannot be found\n")
    # The command may signal its process group before this process ignores the signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
    pid = os.fork()
    if pid == 0:
        _execute(command)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    code = _until_ended(pid)
    os.write(status, b'{"exit-code": %d}\n' % code)
    _kill_children()
    return code


def _execute(command: list[str]) -> None:
    """Execute the command in this process."""
    # Python ignores these; a command expects the default.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command of the executable
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


def _until_ended(pid: int) -> int:
    """Wait for the command, and for all other children that end meanwhile. Return the command's exit code."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _kill_children() -> None:
    """Kill the remaining descendants until there is none."""
    while True:
        found = _descendants()
        # All are stopped before any is killed: a process that forks continuously would otherwise escape.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                try:
                    os.kill(pid, number)
                except OSError:
                    continue
        try:
            # This process adopts the children of ended ones. Blocks while the remaining ones die.
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
