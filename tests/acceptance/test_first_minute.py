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
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import real_parts
from harness.clusters import until
from harness.machines import CHECKOUT, Machine, copy_checkout, debian, machine, wheels

pytestmark = pytest.mark.timeout(400)

WHEELS = "/opt/wheels-of-the-test"
READY = "Ctrl-C ends everything"
ROOT = {"HOME": "/root", "LANG": "C.UTF-8"}
SMOKE = "tests/unit/test_timing.py tests/integration/test_embedded_postgres.py tests/acceptance/test_dev.py::{}".format(
    "test_the_pasted_lines_connect_and_show_the_database"
)


@dataclass(frozen=True)
class Place:
    """Where a checkout lies, and who runs `make dev` in it, how."""

    path: str
    user: str | None = None
    owner: str = "root"
    before: str = ""
    command: tuple[str, ...] = ("make", "dev")
    environment: dict[str, str] = field(default_factory=lambda: ROOT)


HOME = {"HOME": "/home/ada", "LANG": "C.UTF-8"}
PLACES = {
    "root-below-root": Place("/root/plane"),
    "umask-077": Place("/srv/plane", command=("sh", "-c", "umask 077; exec make dev")),
    "user-in-a-private-home": Place("/home/ada/plane", user="ada", owner="ada", environment=HOME),
    "sudo-in-anothers-checkout": Place(
        "/home/ada/plane",
        user="ada",
        owner="ada",
        before="echo 'ada ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ada",
        command=("sudo", "--preserve-env=PIP_NO_INDEX,PIP_FIND_LINKS", "make", "dev"),
        environment=HOME,
    ),
    "space-and-other-letters": Place("/root/Änne's 計画 plane"),
    "150-characters": Place("/srv/" + "a" * 70 + "/" + "b" * 74),
}


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
    there.sh(place.before)
    there.copy(wheels(python), WHEELS)
    copy_checkout(there.root / place.path.lstrip("/"))
    there.sh(f"chown -R {place.owner}: {shlex.quote(place.path)}")


def with_wheels(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}


def runs(there: Machine, place: Place, log: Path, options: str = "") -> None:
    """Run it up to the pasted line and its URL, and end it with Ctrl-C; and once more."""
    log.touch()
    for _ in range(2):
        environment = with_wheels(place.environment) | {"OPTIONS": options}
        with there.running(place.command, log, cwd=place.path, environment=environment, user=place.user) as dev:
            printed = dev.says(READY)
            uses_the_pasted_line(there, printed)
            dev.interrupt()
        assert "Traceback" not in log.read_text()
        until(lambda: there.processes() == [])
        log.write_text("")


def uses_the_pasted_line(there: Machine, printed: str) -> None:
    line = next(line for line in printed.splitlines() if line.startswith("curl "))
    answer = json.loads(there.sh(line))
    assert answer["backend_id"] in there.sh(f"curl -sS --fail --max-time 30 {shlex.quote(answer['url'])}")


@pytest.mark.parametrize("name", PLACES)
def test_make_dev_from_nothing(fresh: Machine, tmp_path: Path, name: str) -> None:
    install(fresh, PLACES[name], "3.11")
    runs(fresh, PLACES[name], tmp_path / "log")


def test_make_dev_on_debian_13(tmp_path: Path) -> None:
    with machine(tmp_path / "machine", debian("trixie")) as there:
        install(there, PLACES["root-below-root"], "3.13")
        runs(there, PLACES["root-below-root"], tmp_path / "log")


def test_two_checkouts_at_once(fresh: Machine, tmp_path: Path) -> None:
    one, two = Place("/root/one"), Place("/root/two")
    for place in (one, two):
        install(fresh, place, "3.11")
    environment = with_wheels(ROOT)
    others = environment | {"OPTIONS": "--port 8081 --proxy-port 9091"}
    with (
        fresh.running(one.command, tmp_path / "one", cwd=one.path, environment=environment) as first,
        fresh.running(two.command, tmp_path / "two", cwd=two.path, environment=others) as second,
    ):
        for dev in (first, second):
            uses_the_pasted_line(fresh, dev.says(READY))
    assert len(copies(fresh)) == 1


# With the tests' environment


def copies(there: Machine, folder: str = "/var/tmp") -> list[str]:
    """The copies of PostgreSQL's programs there."""
    return there.sh(f"find {folder} -maxdepth 1 -name 'plane-postgresql-*'").split()


def dev_runs(there: Machine, log: Path, environment: dict[str, str] | None = None, *command: str) -> None:
    place = Place(
        str(CHECKOUT), command=command or ("make", "dev"), environment=ROOT if environment is None else environment
    )
    runs(there, place, log, f"--data-dir /root/data")


@pytest.mark.parametrize(
    "environment",
    [
        {"LANG": "C.UTF-8"},
        {"HOME": "/root", "LANG": "C"},
        {"HOME": "/root", "LC_ALL": "C"},
        {**ROOT, "TMPDIR": "/root/t"},
    ],
    ids=["no-home", "lang-c", "lc-all-c", "tmpdir"],
)
def test_environments(private: Machine, tmp_path: Path, environment: dict[str, str]) -> None:
    private.sh("mkdir -m 0700 /root/t")
    dev_runs(private, tmp_path / "log", environment)


NOEXEC = "mount -t tmpfs -o noexec,mode=1777 tmpfs"


@pytest.mark.parametrize(
    ("before", "environment", "expected"),
    [
        ("umount /var/tmp; rmdir /var/tmp", ROOT, "/tmp"),
        (f"{NOEXEC} /var/tmp", ROOT, "/tmp"),
        (f"{NOEXEC} /var/tmp; mkdir -m 1777 /mine", {**ROOT, "TMPDIR": "/mine"}, "/mine"),
        (f"{NOEXEC} /var/tmp; {NOEXEC} /tmp", ROOT, "/var/lib"),
        ("umount /var/tmp; mount -t tmpfs -o size=8m,mode=1777 tmpfs /var/tmp", ROOT, "/tmp"),
    ],
    ids=["no-var-tmp", "noexec", "tmpdir", "all-noexec", "full"],
)
def test_programs_go_where_they_can_be_executed(
    private: Machine, tmp_path: Path, before: str, environment: dict[str, str], expected: str
) -> None:
    private.sh(before)
    dev_runs(private, tmp_path / "log", environment)
    assert len(copies(private, expected)) == 1
    assert [
        folder for folder in ("/var/tmp", "/tmp", "/run") if folder != expected and copies(private, f"/{folder}*")
    ] == []


def test_no_folder_for_the_programs_is_an_error_that_names_each(private: Machine, tmp_path: Path) -> None:
    private.sh("".join(f"{NOEXEC} {folder}; " for folder in ("/var/tmp", "/tmp", "/run", "/var/lib")))
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
    private.sh(
        f"mkdir {copy}.unfinished-0 /var/tmp/plane-postgresql-17-0 /var/tmp/plane-postgresql-17-1; touch /var/tmp/x"
    )
    with private.running(
        ("flock", "--shared", "/var/tmp/plane-postgresql-17-1", "sleep", "300"), tmp_path / "o", cwd="/", environment={}
    ):
        for damage in (f"rm {library}", f"truncate --size=1000 {library}", f"chmod 0700 {copy}/embedded_postgres"):
            private.sh(damage)
            dev_runs_once(private, tmp_path / "log")
            assert private.sh(f"stat --format %s {library}") != "1000\n"
        assert sorted(copies(private)) == sorted([copy, "/var/tmp/plane-postgresql-17-1"])
    private.sh("test -e /var/tmp/x")


def dev_runs_once(there: Machine, log: Path) -> None:
    log.write_text("")
    command = ("make", "dev", "OPTIONS=--data-dir /root/data")
    with there.running(command, log, cwd=str(CHECKOUT), environment=ROOT) as dev:
        uses_the_pasted_line(there, dev.says(READY))


def test_a_start_that_is_killed_while_it_copies_hinders_no_later_one(private: Machine, tmp_path: Path) -> None:
    with private.running(("make", "dev"), tmp_path / "o", cwd=str(CHECKOUT), environment=ROOT) as dev:
        until(lambda: copies(private) != [])
        private.sh(
            "for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p = 1 ] || [ $p = $$ ] || kill -9 $p; done 2>/dev/null; true"
        )
        dev.process.wait(30)
    dev_runs(private, tmp_path / "log")
    assert len(copies(private)) == 1


# What a container engine leaves to root by default.
CONTAINER = (
    "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot"
)


def test_as_root_in_a_container(private: Machine, tmp_path: Path) -> None:
    dev_runs(private, tmp_path / "log", ROOT, "setpriv", f"--bounding-set={CONTAINER}", "make", "dev")


def test_without_ipv6(private: Machine, tmp_path: Path) -> None:
    private.sh(
        "for each in all lo; do echo 1 > /proc/sys/net/ipv6/conf/$each/disable_ipv6; done; ! grep -q . /proc/net/if_inet6"
    )
    dev_runs(private, tmp_path / "log")


def test_localhost_is_an_address_of_ipv6_only(private: Machine, tmp_path: Path) -> None:
    # A bind mount: a container engine's file cannot be replaced.
    private.sh("echo '::1 localhost' > /etc/hosts; echo 'hosts: files' > /etc/nsswitch.conf")
    dev_runs(private, tmp_path / "log")
    command = ("make", "dev", "OPTIONS=--data-dir /root/data")
    with private.running(command, tmp_path / "log", cwd=str(CHECKOUT), environment=ROOT) as dev:
        dev.says(READY)
        # Unlike curl, it does not know the name by itself.
        fetch = "import urllib.request as r; print(r.urlopen('http://localhost:9090/ready').status)"
        assert private.sh(f"/usr/bin/python3 -c {shlex.quote(fetch)}") == "200\n"


def test_ports_in_use(private: Machine, tmp_path: Path) -> None:
    serve = ("/usr/bin/python3", "-m", "http.server", "--bind")
    with (
        private.running(
            (*serve, "127.0.0.1", "8080"), tmp_path / "one", cwd="/", environment={"PYTHONUNBUFFERED": "1"}
        ) as one,
        private.running(
            (*serve, "0.0.0.0", "9090"), tmp_path / "two", cwd="/", environment={"PYTHONUNBUFFERED": "1"}
        ) as two,
    ):
        for server in (one, two):
            server.says("Serving HTTP")
        with private.running(("make", "dev"), tmp_path / "log", cwd=str(CHECKOUT), environment=ROOT) as dev:
            assert dev.process.wait(60) != 0
    said = dev.log.read_text()
    for port, flag in ((8080, "--port"), (9090, "--proxy-port")):
        assert re.search(
            rf"port {port} on 127.0.0.1 is in use by python3\S* \(process \d+\); choose another with {flag}", said
        )


def test_make_test_as_root(private: Machine) -> None:
    passes(private, None, ROOT)


def test_make_test_as_a_user(private: Machine) -> None:
    private.sh("useradd --create-home ada; chmod 0700 /home/ada")
    # The Python that made the environment may itself be below /root.
    for folder in (Path(sys.base_prefix), *Path(sys.base_prefix).parents):
        private.sh(f"chmod o+x {shlex.quote(str(folder))}")
    private.sh(f"chown -R ada: {shlex.quote(str(CHECKOUT))}")
    passes(private, "ada", {**HOME, "LANG": "C"})


def passes(there: Machine, user: str | None, environment: dict[str, str]) -> None:
    printed = there.sh("make test", user=user, cwd=str(CHECKOUT), OPTIONS=SMOKE, **environment)
    assert re.search(r"\d+ passed", printed)
