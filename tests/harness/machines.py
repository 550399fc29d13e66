"""A machine of the test's own: a root folder whose changes vanish, with its own mounts, processes and loopback.

The files are those of this machine (or of another system's root folder) below a layer in memory. Needs root, and
a kernel that gives namespaces and overlayfs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import real_parts

__all__ = [
    "CHECKOUT",
    "PATH",
    "Machine",
    "Running",
    "copy_checkout",
    "debian",
    "download_environment",
    "first_process",
    "machine",
    "wheels",
]

CHECKOUT = Path(__file__).parents[2]
# Where Debian's own Python is, which every user of the machine can reach; the tests' own may be below /root.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_LIMIT_S = 30.0
# Three machines that install everything at once on two busy cores take a minute each.
COMMAND_LIMIT_S = 200.0
# Not part of a clone, or made by running something in it.
NOT_CLONED = (".git", ".venv", ".plane", "__pycache__", ".*_cache", ".hypothesis", "site", "build")

# Runs as process 1 of the machine. $1: a folder to mount the layers in; $2: what lies beneath; $3: the checkout.
INIT = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/files" "$1/work" "$1/checkout" "$1/checkout-work" "$1/root"
mount -t overlay -o "metacopy=on,lowerdir=$2,upperdir=$1/files,workdir=$1/work" overlay "$1/root"
mkdir -p "$1/root/proc" "$1/root/dev"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
if [ "$2" = / ]; then
    # What the machine has there in use by others (sockets, locks, copies by other tests) is not ours.
    for folder in tmp var/tmp run; do
        mount -t tmpfs -o mode=1777 tmpfs "$1/root/$folder"
    done
    # Which may lie below one of those.
    mkdir -p "$1/root$3"
    mount -t overlay -o "metacopy=on,lowerdir=$3,upperdir=$1/checkout,workdir=$1/checkout-work" overlay "$1/root$3"
fi
ip link set lo up
# Said from inside: whoever reads it may use this process's root folder.
exec chroot "$1/root" sh -c "echo up; exec sleep infinity"
"""


@dataclass(frozen=True)
class Machine:
    """A machine that runs. ``pid``: of its process 1, as seen from here. ``namespaces``: what it has of its own."""

    pid: int
    namespaces: tuple[str, ...] = ("--mount", "--pid", "--net", "--root", "--wd")

    @property
    def root(self) -> Path:
        """Its root folder, as seen from here."""
        return Path(f"/proc/{self.pid}/root")

    def enter(self, *command: str, user: str | None = None) -> list[str]:
        """The command line that runs ``command`` there."""
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        return ["nsenter", f"--target={self.pid}", *self.namespaces, *become, *command]

    def sh(self, script: str, *, user: str | None = None, cwd: str = "/", **environment: str) -> str:
        """Run a shell script there, which must succeed; returns what it printed."""
        done = subprocess.run(
            self.enter("sh", "-c", f'cd -- "$1"\n{script}', "sh", cwd, user=user),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_LIMIT_S,
            env={"PATH": PATH, **environment},
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-6000:]}{done.stderr[-6000:]}"
        return done.stdout

    def processes(self) -> list[str]:
        """The command lines of what runs there, but for process 1."""
        ours = (Path("/proc") / str(self.pid) / "ns/pid").readlink()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if process.name != str(self.pid) and (process / "ns/pid").readlink() == ours:
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        # Those that have ended have no command line; process 1 does not ask for their status.
        return [line for line in found if line]

    def copy(self, source: Path, target: str) -> None:
        """Copy a folder to there; its files belong to root."""
        shutil.copytree(source, self.root / target.lstrip("/"), symlinks=True, dirs_exist_ok=True)

    @contextmanager
    def running(
        self, command: Sequence[str], log: Path, *, cwd: str, environment: Mapping[str, str], user: str | None = None
    ) -> Iterator[Running]:
        """A command that runs there until the block ends. Its output is in ``log``."""
        script = 'cd -- "$1"; shift; exec "$@"'
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.enter("sh", "-c", script, "sh", cwd, *command, user=user),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": PATH, **environment},
                # As of a terminal: Ctrl-C is for all of it.
                start_new_session=True,
            )
        started = Running(process, log)
        try:
            yield started
        finally:
            started.interrupt()


@dataclass(frozen=True)
class Running:
    """A command that was started in a machine, in a process group of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    def says(self, text: str, limit_s: float = COMMAND_LIMIT_S) -> str:
        """Wait until the command has printed ``text``; returns all that it has printed."""
        end = time.monotonic() + limit_s
        while text not in (printed := self.log.read_text()):
            ended = self.process.poll() is not None
            assert not ended, f"ended without {text!r}:\n{printed[-6000:]}"
            assert time.monotonic() < end, f"not within {limit_s} s: {text!r}:\n{printed[-6000:]}"
            time.sleep(0.05)
        return printed

    def interrupt(self) -> int:
        """Do what Ctrl-C does; returns the exit status."""
        if self.process.poll() is None:
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    group = int((process / "stat").read_text().rpartition(")")[2].split()[2])
                    # Not nsenter itself, which would not wait for the command.
                    if group == self.process.pid != int(process.name):
                        os.kill(int(process.name), signal.SIGINT)
        return self.process.wait(COMMAND_LIMIT_S)


def first_process(init: subprocess.Popen[bytes], limit_s: float) -> int:
    """Return the id of process 1 of a machine whose namespaces ``init`` makes, once its script says that it is up."""
    assert init.stdout is not None
    assert init.stderr is not None
    if init.stdout.readline() != b"up\n":
        init.wait(limit_s)
        real_parts.missing(f"a kernel that gives namespaces and overlayfs ({init.stderr.read().decode()})")
    return int(Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text().split()[0])


@contextmanager
def machine(folder: Path, system: Path = Path("/")) -> Iterator[Machine]:
    """A machine that runs while the block does. ``system``: the root folder beneath it, by default that of this one."""
    if os.geteuid() != 0:
        real_parts.missing("root, who may make namespaces")
    for program in ("curl", "sudo", "ip"):
        if not shutil.which(program, path=PATH):
            real_parts.missing(program)
    folder.mkdir()
    namespaces = ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child"]
    init = subprocess.Popen(
        [*namespaces, "sh", "-c", INIT, "init", str(folder), str(system), str(CHECKOUT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with init:
        try:
            yield Machine(first_process(init, START_LIMIT_S))
        finally:
            # With its process 1 ends everything in it; and with its last process, its mounts.
            init.kill()


def copy_checkout(target: Path) -> None:
    """What a clone of this checkout would have, with changes that are not committed."""
    shutil.copytree(CHECKOUT, target, symlinks=True, ignore=shutil.ignore_patterns(*NOT_CLONED))


def wheels(python: str) -> Path:
    """What `make dev` installs, for a Python version like "3.13": a machine of the tests has no network."""

    def make(folder: Path) -> None:
        fit = ["--only-binary=:all:", f"--python-version={python}", "--require-hashes", f"--dest={folder}"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", *fit, "-r", str(CHECKOUT / "requirements.lock")]
        subprocess.run(command, check=True)

    return real_parts.shared_folder(f"wheels-{python}", make)


def debian(codename: str) -> Path:
    """The root folder of a fresh Debian, with Python, make and curl; "/" where this machine has that system."""
    if f"VERSION_CODENAME={codename}\n" in Path("/etc/os-release").read_text():
        return Path("/")
    if not shutil.which("mmdebstrap") or not (mirror := _mirror()):
        real_parts.missing("mmdebstrap, or a mirror of Debian among apt's sources")

    def make(folder: Path) -> None:
        # Takes half of debootstrap's processor time.
        options = ["--variant=minbase", "--dpkgopt=force-unsafe-io", "--include=python3-venv,make,curl,iproute2"]
        done = subprocess.run(
            # What it mounts there must not be there any more when somebody removes the folder.
            ["unshare", "--mount", "--fork", "--kill-child", "mmdebstrap", *options, codename, str(folder), mirror],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **download_environment()},
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    return real_parts.shared_folder(f"debian-{codename}", make)


def _mirror() -> str:
    """Where apt has this machine's Debian from."""
    release = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.M)
    command = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
    found = subprocess.run(command, check=False, capture_output=True, text=True).stdout.splitlines()
    fit = (line.split()[1] for line in found if release and line.startswith(f"{release[1]} "))
    return next(fit, "")


def download_environment() -> dict[str, str]:
    """The proxy that this machine's apt uses, as mmdebstrap and the apt of another root folder read it."""
    command = ["apt-config", "shell", "PROXY", "Acquire::http::Proxy"]
    found = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    return {"http_proxy": found.split("'")[1]} if "'" in found else {}
