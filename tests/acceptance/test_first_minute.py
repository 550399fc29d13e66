"""`make dev` and `make test` wherever the checkout lies, as whomever they run, on whatever machine.

Each test has a machine of its own (`harness.machines`). Those of the first half install everything, from wheels that
were downloaded before. Those of the second half run in the environment of these tests, in a checkout that others may
not enter.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from harness.clusters import until
from harness.machines import CHECKOUT, Machine, copy_checkout, debian, machine, wheels

pytestmark = pytest.mark.timeout(400)

WHEELS = "/opt/wheels-of-the-test"
READY = "Ctrl-C ends everything"
ROOT = {"HOME": "/root", "LANG": "C.UTF-8"}
SMOKE = (
    "-n 0 tests/unit/test_timing.py "
    "tests/integration/test_embedded_postgres.py::test_data_survives_the_server "
    "tests/acceptance/test_dev.py::test_the_pasted_lines_connect_and_show_the_database"
)


@dataclass(frozen=True)
class Place:
    """Where a checkout lies, and who runs `make dev` in it, how."""

    path: str
    user: str | None = None
    owner: str = "root"
    command: tuple[str, ...] = ("make", "dev")
    environment: dict[str, str] = field(default_factory=lambda: ROOT)


ONE, TWO = Place("/root/one"), Place("/root/two")
USERS = Place("/home/ada/plane", user="ada", owner="ada", environment={"HOME": "/home/ada", "LANG": "C.UTF-8"})
STRANGE = Place(
    f"/srv/Ännes 計画 of the 'plane'/{'a' * 60}/{'b' * 60}", command=("sh", "-c", "umask 077; exec make dev")
)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Machine]:
    """This machine, as it would be without the tests' environment."""
    with machine(tmp_path / "machine", debian("bookworm")) as running:
        yield running


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Machine]:
    """This machine, where nobody but root may enter the checkout, whose environment is made already."""
    with machine(tmp_path / "machine") as running:
        running.sh(f"chmod 0700 {shlex.quote(str(CHECKOUT))}")
        yield running


def install(there: Machine, place: Place, python: str) -> None:
    """Put a checkout and the wheels there."""
    if place.user:
        there.sh("useradd --create-home ada; chmod 0700 /home/ada")
    there.copy(wheels(python), WHEELS)
    copy_checkout(there.root / place.path.lstrip("/"))
    there.sh(f"chown -R {place.owner}: {shlex.quote(place.path)}")


def with_wheels(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS, "PIP_NO_COMPILE": "1"}


def runs(there: Machine, place: Place, log: Path, options: str = "", starts: int = 1) -> None:
    """Run it up to the pasted line and its URL, and end it with Ctrl-C."""
    environment = with_wheels(place.environment) | {"OPTIONS": options}
    for _ in range(starts):
        log.write_text("")
        with there.running(place.command, log, cwd=place.path, environment=environment, user=place.user) as dev:
            uses_the_pasted_line(there, dev.says(READY))
            dev.interrupt()
        assert "Traceback" not in log.read_text()
        until(lambda: not any("plane" in line and "flock" not in line for line in there.processes()))


def uses_the_pasted_line(there: Machine, printed: str) -> None:
    line = next(line for line in printed.splitlines() if line.startswith("curl "))
    answer = json.loads(there.sh(line))
    assert answer["backend_id"] in there.sh(f"curl -sS --fail --max-time 30 {shlex.quote(answer['url'])}")


def test_a_long_path_with_a_space_and_other_letters_and_a_umask_for_nobody_else(fresh: Machine, tmp_path: Path) -> None:
    install(fresh, STRANGE, "3.11")
    runs(fresh, STRANGE, tmp_path / "log", starts=2)


def test_a_users_own_checkout_and_the_same_with_sudo(fresh: Machine, tmp_path: Path) -> None:
    install(fresh, USERS, "3.11")
    runs(fresh, USERS, tmp_path / "log", starts=2)
    fresh.sh("echo 'ada ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ada")
    # With the user's database, whose owner PostgreSQL runs as; and with one that only root made.
    runs(fresh, replace(USERS, command=("sudo", "make", "dev")), tmp_path / "log")
    roots = ("sudo", "make", "dev", "OPTIONS=--data-dir /home/ada/plane/other")
    runs(fresh, replace(USERS, command=roots), tmp_path / "log")
    assert len(copies(fresh)) == 1
    # What root has run in it does not keep its owner out.
    runs(fresh, USERS, tmp_path / "log")


def test_make_dev_on_debian_13(tmp_path: Path) -> None:
    with machine(tmp_path / "machine", debian("trixie")) as there:
        install(there, ONE, "3.13")
        runs(there, ONE, tmp_path / "log")


def test_two_checkouts_at_once(fresh: Machine, tmp_path: Path) -> None:
    for place in (ONE, TWO):
        install(fresh, place, "3.11")
    environment = with_wheels(ROOT)
    others = environment | {"OPTIONS": "--port 8081 --proxy-port 9091"}
    with (
        fresh.running(ONE.command, tmp_path / "one", cwd=ONE.path, environment=environment) as first,
        fresh.running(TWO.command, tmp_path / "two", cwd=TWO.path, environment=others) as second,
    ):
        for dev in (first, second):
            uses_the_pasted_line(fresh, dev.says(READY))
    assert len(copies(fresh)) == 1
    runs(fresh, ONE, tmp_path / "log")


# With the tests' environment


def copies(there: Machine, folder: str = "/var/tmp") -> list[str]:
    """The copies of PostgreSQL's programs there."""
    return there.sh(f"find {folder} -maxdepth 1 -name 'plane-postgresql-*'").split()


HERE = Place(str(CHECKOUT))
OTHER_DATA = "--data-dir /root/data"


def dev_runs(there: Machine, log: Path, environment: dict[str, str] = ROOT) -> None:
    runs(there, replace(HERE, environment=environment), log, OTHER_DATA)


def test_no_home_the_c_locale_and_a_private_tmpdir(private: Machine, tmp_path: Path) -> None:
    private.sh("mkdir -m 0700 /root/t")
    dev_runs(private, tmp_path / "log", {"LC_ALL": "C", "TMPDIR": "/root/t"})


NOEXEC = "mount -t tmpfs -o noexec,mode=1777 tmpfs"


def change_folders(there: Machine, commands: str) -> None:
    """Mount over folders of the machine. The checkout, which may lie in one of them, stays where it is."""
    here = shlex.quote(str(CHECKOUT))
    there.sh(f"mkdir /kept; mount --bind {here} /kept; {commands}; mkdir -p {here}; mount --bind /kept {here}")


@pytest.mark.parametrize(
    ("before", "environment", "expected"),
    [
        ("umount /var/tmp; rm -rf /var/tmp", ROOT, "/tmp"),
        (f"{NOEXEC} /var/tmp; mkdir -m 1777 /mine", {**ROOT, "TMPDIR": "/mine"}, "/mine"),
        (f"umount /var/tmp; mount -t tmpfs -o size=8m,mode=1777 tmpfs /var/tmp; {NOEXEC} /tmp", ROOT, "/var/lib"),
    ],
    ids=["no-var-tmp", "noexec", "full"],
)
def test_programs_go_where_they_can_be_executed(
    private: Machine, tmp_path: Path, before: str, environment: dict[str, str], expected: str
) -> None:
    change_folders(private, before)
    dev_runs(private, tmp_path / "log", environment)
    assert len(copies(private, expected)) == 1


def test_no_folder_for_the_programs_is_an_error_that_names_each(private: Machine, tmp_path: Path) -> None:
    change_folders(private, "; ".join(f"{NOEXEC} {folder}" for folder in ("/var/tmp", "/tmp", "/run", "/var/lib")))
    with private.running(("make", "dev"), tmp_path / "log", cwd=str(CHECKOUT), environment=ROOT) as dev:
        assert dev.process.wait(60) != 0
    said = dev.log.read_text()
    assert "Traceback" not in said
    for folder in ("/var/tmp", "/tmp", "/run", "/var/lib"):
        assert f"  {folder}: mounted with noexec" in said
    assert "--db" in said


def test_an_incomplete_copy_is_made_anew_and_leftovers_are_removed(private: Machine, tmp_path: Path) -> None:
    dev_runs(private, tmp_path / "log")
    (copy,) = copies(private)
    library = private.sh(f"ls {copy}/embedded_postgres.libs/libpq*").strip()
    # As an earlier program left it, a killed one, one of another version, and one of that which is running.
    old, running = "/var/tmp/plane-postgresql-17-0", "/var/tmp/plane-postgresql-17-1"
    private.sh(f"mkdir {copy}.unfinished-0 {old} {running}; touch /var/tmp/x")
    lock = ("flock", "--shared", running, "sleep", "300")
    with private.running(lock, tmp_path / "lock", cwd="/", environment={}):
        for damage in (f"rm {library}", f"truncate --size=1000 {library}", f"chmod 0700 {copy}/embedded_postgres"):
            private.sh(damage)
            dev_runs(private, tmp_path / "log")
            assert private.sh(f"stat --format %s {library}") != "1000\n"
        assert sorted(copies(private)) == sorted([copy, running])
    private.sh("test -e /var/tmp/x")


def test_a_start_that_is_killed_while_it_copies_hinders_no_later_one(private: Machine, tmp_path: Path) -> None:
    with private.running(("make", "dev"), tmp_path / "o", cwd=str(CHECKOUT), environment=ROOT) as dev:
        until(lambda: copies(private) != [])
        # From inside: all of the machine's processes but the first.
        private.sh("kill -9 -1 || true")
        dev.process.wait(30)
    dev_runs(private, tmp_path / "log")
    assert len(copies(private)) == 1


# What a container engine leaves to root by default.
CAPABILITIES = (
    *("-all", "+chown", "+dac_override", "+fowner", "+fsetid", "+kill", "+setgid", "+setuid", "+setpcap"),
    *("+net_bind_service", "+net_raw", "+sys_chroot", "+mknod", "+audit_write", "+setfcap"),
)


def test_as_root_in_a_container_without_ipv6(private: Machine, tmp_path: Path) -> None:
    # Nor can bubblewrap make a user namespace there, since the machine's root folder is not its mounts' root.
    private.sh("for each in all lo; do echo 1 > /proc/sys/net/ipv6/conf/$each/disable_ipv6; done")
    assert private.sh("cat /proc/net/if_inet6") == ""
    command = ("setpriv", f"--bounding-set={','.join(CAPABILITIES)}", "make", "dev")
    with private.running(command, tmp_path / "log", cwd=str(CHECKOUT), environment=ROOT) as dev:
        printed = dev.says(READY)
        assert "processes not isolated" in printed
        uses_the_pasted_line(private, printed)


def test_localhost_is_an_address_of_ipv6_only(private: Machine, tmp_path: Path) -> None:
    private.sh("echo '::1 localhost' > /etc/hosts; echo 'hosts: files' > /etc/nsswitch.conf")
    with private.running(("make", "dev"), tmp_path / "log", cwd=str(CHECKOUT), environment=ROOT) as dev:
        uses_the_pasted_line(private, dev.says(READY))
        # Unlike curl, it does not know the name by itself.
        fetch = "import urllib.request as r; print(r.urlopen('http://localhost:9090/ready').status)"
        assert private.sh(f"/usr/bin/python3 -c {shlex.quote(fetch)}") == "200\n"


def test_ports_in_use(private: Machine, tmp_path: Path) -> None:
    serve = ("/usr/bin/python3", "-u", "-m", "http.server", "--bind")
    one, two = ((*serve, "127.0.0.1", "8080"), (*serve, "0.0.0.0", "9090"))
    with (
        private.running(one, tmp_path / "one", cwd="/", environment={}) as first,
        private.running(two, tmp_path / "two", cwd="/", environment={}) as second,
    ):
        for server in (first, second):
            server.says("Serving HTTP")
        with private.running(("make", "dev"), tmp_path / "log", cwd=str(CHECKOUT), environment=ROOT) as dev:
            assert dev.process.wait(60) != 0
    said = dev.log.read_text()
    for port, flag in ((8080, "--port"), (9090, "--proxy-port")):
        holder = r"is in use by python3\S* \(process \d+\)"
        assert re.search(rf"port {port} on 127\.0\.0\.1 {holder}; choose another with {flag}", said)


def test_make_test_as_root(private: Machine) -> None:
    passes(private, None, ROOT)


def test_make_test_as_a_user(private: Machine) -> None:
    private.sh("useradd --create-home ada; chmod 0700 /home/ada")
    # The Python that made the environment may itself be below /root.
    for folder in (Path(sys.base_prefix), *Path(sys.base_prefix).parents):
        private.sh(f"chmod o+x {shlex.quote(str(folder))}")
    private.sh(f"chown -R ada: {shlex.quote(str(CHECKOUT))}")
    passes(private, "ada", {"HOME": "/home/ada", "LANG": "C"})


def passes(there: Machine, user: str | None, environment: dict[str, str]) -> None:
    printed = there.sh("make test", user=user, cwd=str(CHECKOUT), OPTIONS=SMOKE, **environment)
    assert re.search(r"\d+ passed", printed)
