"""The commands of the how-to pages, run as they stand on a machine whose names and addresses are those of the pages."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from harness import real_parts
from harness.clusters import until
from harness.machines import CHECKOUT, Machine, machine
from harness.pages import Block, blocks, matches
from harness.program import PLANE
from plane.protocol import codec
from plane.protocol.control_api import ConnectRequest

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="machines of the test's own need root"),
]

HOW_TO = CHECKOUT / "docs" / "how-to"
ENVIRONMENT = {"HOME": "/root", "LANG": "C.UTF-8", "PLANE_CONTROLLER": "http://controller:8080"}
# A database that everybody on the machine may use, where the pages have it.
PREPARE = """
useradd --system plane
mkdir --parents /etc/plane
ln --symbolic "$PLANE" /usr/local/bin/plane
ip address add 10.0.0.5/32 dev lo
cp /etc/hosts /tmp/hosts
echo '127.0.0.1 db controller plane.example.com' >> /tmp/hosts
mount --bind /tmp/hosts /etc/hosts
binaries=$(ls --directory /usr/lib/postgresql/*/bin | tail --lines 1)
install --directory --owner postgres /var/lib/database
cd /
runuser --user postgres -- "$binaries/initdb" --auth trust --no-sync --pgdata /var/lib/database > /dev/null
runuser --user postgres -- "$binaries/pg_ctl" --wait --pgdata /var/lib/database --log /var/lib/database/log \
    --options '-c unix_socket_directories=/tmp -c fsync=off' start > /dev/null
createuser --host /tmp --username postgres --superuser plane
createdb --host /tmp --username postgres plane
"""


def block(page: str, title: str) -> Block:
    """The block of a page with this title."""
    (found,) = (each for each in blocks(HOW_TO / page) if each.title == title)
    return found


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the program and a database."""
    if not Path("/usr/lib/postgresql").exists():
        real_parts.missing("PostgreSQL")
    with machine(tmp_path_factory.mktemp("machines") / "machine") as there:
        there.sh(PREPARE, PLANE=str(PLANE))
        yield there


def test_components_start_as_separate_programs_and_serve_https(prepared: Machine, tmp_path: Path) -> None:
    there = prepared
    # The keys of the page on Kubernetes.
    there.sh(block("kubernetes.md", "keys").text, cwd="/etc/plane", **ENVIRONMENT)
    node = {**ENVIRONMENT, "PLANE_CONTROLLER_KEY_FILE": "/etc/plane/node-key"}
    operator = {**ENVIRONMENT, "PLANE_CONTROLLER_KEY_FILE": "/etc/plane/ops"}
    with ExitStack() as stack:
        started = {}
        for line in block("install.md", "each in a terminal of its own").text.splitlines():
            name = line.split()[1]
            folder = there.root / "var/lib/plane"
            folder.mkdir(exist_ok=True)
            started[name] = stack.enter_context(
                there.running(("sh", "-c", f"exec {line}"), tmp_path / name, cwd="/root", environment=node)
            )
            started[name].says("controller listening" if name == "controller" else "connected to controller")
        connect = "plane admin connect --command 'exec python3 -m http.server $PORT' --key k"
        until(lambda: "ready" in there.sh("plane admin cluster-state plane.example.com:9090", **operator))
        printed = there.sh(connect, **operator)
        url = re.search(r"http://plane\.example\.com:9090/\S+", printed)
        assert url is not None, printed
        assert "Directory listing" in there.sh(f"curl --silent --fail {url[0]}")

        # A machine is emptied before it goes. The page has a cluster without a port.
        drone = re.search(r"dr-\S+", there.sh("plane admin cluster-state plane.example.com:9090", **operator))
        assert drone is not None
        drain = block("kubernetes.md", "drain").text
        drain = drain.replace("plane.example.com", "plane.example.com:9090").replace("DRONE", drone[0])
        assert "k" in there.sh(drain, **operator)
        state = there.sh("plane admin cluster-state plane.example.com:9090", **operator)
        assert "draining" in state

        authority = trustme.CA()
        certificate = authority.issue_cert("plane.example.com")
        folder = there.root / "root"
        (folder / "chain.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        (folder / "key.pem").write_bytes(certificate.private_key_pem.bytes())
        (folder / "key.pem").chmod(0o600)
        (folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
        started["proxy"].interrupt()
        line = block("tls.md", "in a terminal").text
        with there.running(("sh", "-c", f"exec {line}"), tmp_path / "tls", cwd="/root", environment=node) as proxy:
            proxy.says("connected to controller")
            status = "curl --silent --cacert ca.pem --output /dev/null --write-out '%{http_code} %{ssl_verify_result}'"
            assert there.sh(f"{status} https://plane.example.com/unknown/", cwd="/root").split() == ["410", "0"]


def test_a_restored_database_is_the_one_that_was_backed_up(prepared: Machine) -> None:
    there = prepared
    there.sh("plane migrate --db postgresql://plane@db/plane", **ENVIRONMENT)
    there.sh(block("backup.md", "back up").text, cwd="/root")
    psql = "psql --host /tmp --username postgres --no-align --tuples-only plane --command"
    tables = f"{psql} \"SELECT count(*) FROM pg_tables WHERE schemaname = 'public'\""
    expected = there.sh(tables)
    assert int(expected) > 10
    there.sh(f"{psql} 'DROP TABLE backend CASCADE'")
    assert there.sh(tables) != expected
    there.sh(block("backup.md", "restore").text, cwd="/root")
    assert there.sh(tables) == expected
    # A controller finds nothing to migrate.
    assert "plane" not in there.sh("plane db list-nodes --db postgresql://plane@db/plane --json", **ENVIRONMENT)


def test_an_isolated_program_can_do_what_the_page_shows(prepared: Machine, tmp_path: Path) -> None:
    page = HOW_TO / "isolate.md"
    program = block("isolate.md", "isolated.py")
    (output,) = (each for each in blocks(page) if each.title == "output")
    (command,) = (each.text for each in blocks(page) if each.title == "" and each.kind == "sh")
    # The machine may have the user already, if this test is run again.
    prepared.sh("! id plane-backend 2>/dev/null || userdel plane-backend")
    # Bubblewrap is there, so apt needs no network.
    prepared.sh(block("isolate.md", "root").text)
    (prepared.root / str(CHECKOUT).lstrip("/") / program.title).write_text(program.text)
    environment = {**ENVIRONMENT, "XDG_STATE_HOME": "/root/state"}
    dev = (str(PLANE), "dev", "--data-dir", "/root/data", "--runtime", "process")
    with prepared.running(dev, tmp_path / "dev", cwd="/root", environment=environment) as running:
        running.says("Ctrl-C ends everything")
        command = command.replace(".venv/bin/python", str(PLANE.parent / "python"))
        printed = prepared.sh(command, cwd=str(CHECKOUT), **environment)
        assert matches(output.text, printed), printed
        assert printed.startswith("I am plane-backend ")


def test_sums_of_a_release_are_checked(tmp_path: Path) -> None:
    # As `make dist` makes them.
    (tmp_path / "plane.whl").write_bytes(b"the wheel")
    subprocess.run("sha256sum *.whl > SHA256SUMS", shell=True, cwd=tmp_path, check=True)
    command = block("verify-a-release.md", "sums").text
    assert subprocess.run(command, shell=True, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    (tmp_path / "plane.whl").write_bytes(b"another")
    assert subprocess.run(command, shell=True, cwd=tmp_path, check=False, capture_output=True).returncode == 1


def test_the_connect_requests_of_the_applications_index_are_valid() -> None:
    requests = [each.text for each in blocks(HOW_TO / "applications" / "index.md")]
    assert len(requests) == 2
    for text in requests:
        codec.decode(json.dumps(json.loads(text)), ConnectRequest)
