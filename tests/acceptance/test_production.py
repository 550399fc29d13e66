"""Somebody follows "To production" on three bare machines: pastes each block where it says, and sees what it shows.

Debian 13 with systemd, PostgreSQL and Docker are real, and so is the delegation of the zone. Not as on the page are:

- The machines have no way out. What Debian and pip would download lies there before; the records of the page are
  served by a name server of the test.
- The certificate authority is Pebble instead of Let's Encrypt.
- The image `nginx` is a small web server, there before, since there is no registry.
- The test copies the files of `scp`, so that the machines need no SSH server.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.booted_machines import CA_NAME, CA_PORT, SERVICE_ADDRESS, Internet, booted_machine, booted_system, internet
from harness.machines import CHECKOUT, Machine, wheels
from harness.pages import blocks, matches

pytestmark = pytest.mark.timeout(600)

PAGE = CHECKOUT / "docs" / "tutorial" / "production.md"
# Number of each machine in the addresses, and whether it has a public one.
MACHINES = {"one": (1, True), "two": (2, False), "three": (3, True)}
EVERY_MACHINE = "every machine"
HOME = "/root"
ENVIRONMENT = {"HOME": HOME, "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
WEB_SERVER = """CMD ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/"]"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a release has: the wheel, and the sources. In these Pebble replaces Let's Encrypt."""
    built, unpacked = (tmp_path_factory.mktemp(name) for name in ("built", "unpacked"))
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(built)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(unpacked, filter="data")
    (folder,) = unpacked.iterdir()
    proxy = folder / "deploy/etc/proxy.json"
    text = proxy.read_text()
    assert LETS_ENCRYPT in text
    proxy.write_text(text.replace(LETS_ENCRYPT, f"https://{CA_NAME}:{CA_PORT}/dir"))
    with tarfile.open(archive, "w:gz", compresslevel=1) as sources:
        sources.add(folder, folder.name)
    return built


@pytest.fixture
def world(release: Path, tmp_path: Path) -> Iterator[tuple[dict[str, Machine], Internet]]:
    """Three machines as their provider gives them, with the release in the home of root."""
    system = booted_system("postgresql", "docker.io", "bind9-dnsutils")
    records = next(block.text for block in blocks(PAGE) if block.title == "records")
    with ExitStack() as stack:
        net = stack.enter_context(internet(tmp_path, records))
        machines = {name: stack.enter_context(booted_machine(tmp_path / name, name, system)) for name in MACHINES}
        for name, there in machines.items():
            number, public = MACHINES[name]
            net.connect(there, number, public=public)
            (there.root / "etc/resolv.conf").write_text(f"nameserver {SERVICE_ADDRESS}\n")
            there.copy(release, HOME)
            there.copy(wheels("3.13"), "/opt/libraries")
            pip = "[global]\nno-index = true\nfind-links = /opt/libraries\n[install]\nno-compile = true\n"
            (there.root / "etc/pip.conf").write_text(pip)
        shutil.copy(net.authority, machines["three"].root / "usr/local/share/ca-certificates/authority.crt")
        machines["three"].sh("update-ca-certificates")
        yield machines, net


class Reader:
    """Somebody with a terminal on each machine."""

    def __init__(self, machines: dict[str, Machine]) -> None:
        self._machines = machines
        self._printed: list[str] = []

    def follow(self, page: Path) -> None:
        """Paste each block, and compare what it prints."""
        for block in blocks(page):
            match block.kind, block.title:
                case "sh", where:
                    self._paste(block.text, where)
                case "text", "output":
                    for printed in self._printed:
                        assert matches(block.text, printed), f"expected:\n{block.text}\nprinted:\n{printed}"

    def _paste(self, text: str, where: str) -> None:
        if "--image nginx" in text:
            self._provide_image(self._machines["two"])
        names = list(self._machines) if where == EVERY_MACHINE else [where]
        with ThreadPoolExecutor() as threads:
            self._printed = list(threads.map(lambda name: self._run(text, self._machines[name]), names))

    def _run(self, text: str, there: Machine) -> str:
        printed = ""
        for is_copy, lines in itertools.groupby(text.splitlines(), lambda line: line.startswith("scp ")):
            if is_copy:
                for line in lines:
                    self._copy(line, there)
            else:
                printed += _in_terminal(there, "\n".join(lines))
        return printed

    def _copy(self, line: str, there: Machine) -> None:
        found = re.fullmatch(r"scp (?P<file>\S+) root@10\.0\.0\.(?P<number>\d):/(?P<folder>\S+)/", line)
        assert found is not None, line
        target = self._machines[list(MACHINES)[int(found["number"]) - 1]]
        shutil.copy(there.root / "etc/plane" / found["file"], target.root / found["folder"])

    def _provide_image(self, there: Machine) -> None:
        if not there.sh("docker image ls --quiet nginx"):
            with tarfile.open(there.root / "tmp/image.tar", "w") as image:
                image.add("/bin/busybox", "bin/busybox")
            there.sh(f"docker import --change '{WEB_SERVER}' /tmp/image.tar nginx")


def _in_terminal(there: Machine, text: str) -> str:
    """Run lines as in one terminal, which keeps its variables."""
    script = f"set -e\n[ ! -e .terminal ] || . ./.terminal\n{text}\nexport -p > .terminal"
    return there.sh(script, cwd=HOME, **ENVIRONMENT)


def test_each_block_of_the_page_does_what_it_shows(world: tuple[dict[str, Machine], Internet]) -> None:
    machines, net = world
    Reader(machines).follow(PAGE)
    one, two = machines["one"], machines["two"]

    (one.root / "tmp/roots.pem").write_text(net.trusted_roots())
    # One process for the key, through HTTPS with a certificate that a browser accepts.
    printed = _in_terminal(one, "plane admin connect --image nginx --key hello --immediate --json")
    url = re.search(r'"url":\s*"(https://plane\.example\.com/[^"]+)"', printed)
    assert url is not None, printed
    one.sh(f"curl --silent --show-error --fail --cacert /tmp/roots.pem '{url[1]}bin/busybox' --output /dev/null")
    assert len(two.sh("docker ps --all --quiet").split()) == 1
    # Only the proxy reaches the port of the backend.
    port = two.sh("docker ps --format '{{.Ports}}'").partition(":")[2].partition("-")[0]
    reach = f"curl --silent --max-time 2 --output /dev/null http://10.0.0.2:{port}/bin/busybox"
    machines["three"].sh(reach)
    with pytest.raises(AssertionError):
        one.sh(reach)
    for name, parts in (("one", ("controller", "dns")), ("two", ("drone",)), ("three", ("proxy",))):
        for part in parts:
            assert machines[name].sh(f"systemctl is-active plane-{part}") == "active\n"
            assert "Traceback" not in machines[name].sh(f"journalctl --no-pager --unit plane-{part}")
