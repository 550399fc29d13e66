"""Machines of the test's own that systemd has booted, with a network between them and what the Internet would have.

Each is a fresh Debian 13 below a layer in memory, with its own processes, mounts, network and control groups. Debian's
packages that a test installs there are in apt's cache, since the machines have no way out. Needs root, mmdebstrap, and
a kernel that gives namespaces, overlayfs and control groups of version 2.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from harness import real_parts
from harness.clusters import until
from harness.machines import PATH, Machine, debian, download_environment, first_process
from harness.pebble import write_pebble_config

__all__ = ["CA_NAME", "CA_PORT", "Internet", "booted_machine", "booted_system", "internet"]

START_LIMIT_S = 60.0
CA_NAME = "acme.ca.example"
CA_PORT = 14000
# Of the name server, and of the certificate authority.
SERVICE_ADDRESS = "203.0.113.53"
BRIDGE = "internet"

# Runs as process 1 of the machine. $1: a folder to mount the layers in; $2: what lies beneath; $3: the host name.
INIT = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/files" "$1/work" "$1/root"
root="$1/root"
mount -t overlay -o "metacopy=on,lowerdir=$2,upperdir=$1/files,workdir=$1/work" overlay "$root"
mount -t proc proc "$root/proc"
# Read-only, as in a container: udev leaves the devices of this machine alone.
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/var/lib/docker"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for folder in tmp run var/lib/docker; do
    mount -t tmpfs tmpfs "$root/$folder"
done
ip link set lo up
hostname "$3"
echo up
exec chroot "$root" env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=multi-user.target
"""
NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup")


@dataclass(frozen=True)
class Internet:
    """A network, and in it a name server and a certificate authority.

    Attributes:
        authority: the file with the certificate to trust for requests to the authority.
        pid: of a process in the network's namespace.
    """

    authority: Path
    pid: int

    def connect(self, machine: Machine, number: int, *, public: bool) -> None:
        """Give a machine its addresses: 10.0.0.N, and 203.0.113.N if it is public."""
        name = f"m{number}"
        _run(
            "ip",
            "link",
            "add",
            name,
            "netns",
            str(self.pid),
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            str(machine.pid),
        )
        for command in (f"link set {name} master {BRIDGE}", f"link set {name} up"):
            _run("nsenter", f"--target={self.pid}", "--net", "ip", *command.split())
        machine.sh(f"ip addr add 10.0.0.{number}/24 dev eth0; ip link set eth0 up")
        if public:
            machine.sh(f"ip addr add 203.0.113.{number}/24 dev eth0")
        else:
            machine.sh("ip route add default via 10.0.0.254")

    def trusted_roots(self) -> str:
        """Return the certificate of the root of what the authority issues, as Pebble's management port gives it."""
        url = f"https://{SERVICE_ADDRESS}:15000/roots/0"
        return _run("nsenter", f"--target={self.pid}", "--net", "curl", "--silent", "--fail", "--insecure", url)


@contextmanager
def internet(folder: Path, records: str) -> Iterator[Internet]:
    """A network that has these records in its DNS (a record per line) while the block runs."""
    pebble = shutil.which("pebble")
    if pebble is None or os.geteuid() != 0:
        real_parts.missing("Pebble (Debian's pebble), or root")
    assert pebble is not None
    zone = folder / "zone"
    zone.write_text(f"{records}\n{CA_NAME}. A {SERVICE_ADDRESS}\n")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    config = write_pebble_config(folder, authority.issue_cert(CA_NAME), SERVICE_ADDRESS, (CA_PORT, 15000, 80, 443))
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(
            _until_killed(["unshare", "--net", "sh", "-c", "echo up; exec sleep infinity"], "up")
        )
        inside = ["nsenter", f"--target={holder.pid}", "--net"]
        for command in (
            "link set lo up",
            f"link add {BRIDGE} type bridge",
            f"addr add {SERVICE_ADDRESS}/24 dev {BRIDGE}",
            f"addr add 10.0.0.254/24 dev {BRIDGE}",
            f"link set {BRIDGE} up",
        ):
            _run(*inside, "ip", *command.split())
        resolver = [sys.executable, "-m", "harness.resolver_program", SERVICE_ADDRESS, str(zone)]
        stack.enter_context(
            _until_killed([*inside, *resolver], "listening", {"PYTHONPATH": str(Path(__file__).parents[1])})
        )
        authority_command = [*inside, pebble, "-config", str(config), "-dnsserver", f"{SERVICE_ADDRESS}:53", "-strict"]
        stack.enter_context(_until_killed(authority_command, "Listening on", {"PEBBLE_VA_NOSLEEP": "1"}))
        yield Internet(folder / "authority.pem", holder.pid)


@contextmanager
def _until_killed(
    command: list[str], says: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A program that runs while the block does, and has printed a line with these words."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as process:
        assert process.stdout is not None
        try:
            printed = ""
            while says not in printed:
                line = process.stdout.readline()
                assert line, f"{command} ended: {printed}"
                printed += line
            yield process
        finally:
            process.kill()


@contextmanager
def booted_machine(folder: Path, name: str, system: Path) -> Iterator[Machine]:
    """A machine that runs while the block does, once systemd has started all that is enabled there."""
    folder.mkdir()
    groups = _control_group()
    command = [
        "unshare",
        *NAMESPACES,
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        INIT,
        "init",
        str(folder),
        str(system),
        name,
    ]
    enter = f'echo $$ > {groups}/cgroup.procs && exec "$@"'
    init = subprocess.Popen(["sh", "-c", enter, "sh", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with init:
        try:
            machine = Machine(first_process(init, START_LIMIT_S), namespaces=(*NAMESPACES, "--root", "--wd"))
            until(lambda: _has_booted(machine), START_LIMIT_S)
            yield machine
        finally:
            init.kill()
            init.wait(START_LIMIT_S)
            until(lambda: _removed(groups), START_LIMIT_S)


def _has_booted(machine: Machine) -> bool:
    command = machine.enter("systemctl", "is-system-running")
    state = subprocess.run(command, check=False, capture_output=True, text=True, env={"PATH": PATH}).stdout.strip()
    # Degraded: there are no kernel modules to load.
    return state in ("running", "degraded")


def _control_group() -> Path:
    """Make a control group of version 2 for a machine."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found = [Path(fields[4]) for fields in mounts if fields[fields.index("-") + 1] == "cgroup2"]
    if not found:
        real_parts.missing("control groups of version 2")
    group = found[0] / f"plane-test-{secrets.token_hex(4)}"
    group.mkdir()
    return group


def _removed(group: Path) -> bool:
    """Remove a control group with those below it; False while processes of it end."""
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not group.exists()


def booted_system(*packages: str) -> Path:
    """The root folder of a fresh Debian 13 with systemd, whose apt can install the packages without a network."""
    base = debian("trixie")
    if base == Path("/"):
        real_parts.missing("a fresh Debian 13: this machine is one, and not fresh")

    def make(folder: Path) -> None:
        subprocess.run(["cp", "--archive", f"{base}/.", folder], check=True)
        script = """
            set -e
            mount -t proc proc "$1/proc"
            chroot "$1" apt-get --quiet update
            chroot "$1" apt-get --yes --quiet --no-install-recommends install systemd-sysv dbus ca-certificates
            chroot "$1" apt-get --yes --quiet --download-only install {packages}
        """
        command = [
            "unshare",
            "--mount",
            "--fork",
            "sh",
            "-c",
            script.format(packages=" ".join(packages)),
            "sh",
            str(folder),
        ]
        values = {**os.environ, **download_environment(), "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=values)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    return real_parts.shared_folder("booted-debian-trixie", make)


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=START_LIMIT_S)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-1000:]}{done.stderr[-1000:]}"
    return done.stdout
