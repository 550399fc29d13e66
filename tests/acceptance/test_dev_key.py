"""The API key of `plane dev`: who has it, who does not, and who finds it without being told."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import real_parts
from harness.clusters import Cluster, dev_cluster, dev_key
from harness.program import PLANE
from plane.client import CallRefused, Plane


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path]]:
    folder = tmp_path_factory.mktemp("key")
    with dev_cluster(folder, "--runtime", "process") as cluster:
        yield cluster, folder


def plane(cluster: Cluster, where: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`plane admin list` and the like, in a folder."""
    values = {**os.environ, "PLANE_CONTROLLER": cluster.control_urls[0], **environment}
    return subprocess.run(
        [PLANE, "admin", *arguments], cwd=where, env=values, capture_output=True, text=True, check=False, timeout=60
    )


def test_without_the_key_the_control_api_is_closed(running: tuple[Cluster, Path]) -> None:
    cluster, folder = running
    closed = Cluster(cluster.control_urls, cluster.proxy_port)
    assert closed.call("GET", "/ctrl/backends").status == 401
    assert closed.call("POST", "/ctrl/connect", {}).status == 401
    assert closed.call("GET", "/pub/health").status == 200
    # Only the front page opens the demo without a key.
    assert closed.call("POST", "/dev/open", {"key": "k"}).status == 403
    assert closed.get(cluster.control_urls[0] + "/").status == 200
    key = folder / ".plane" / "api-key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert dev_key(folder) in cluster.programs["dev"].out.read_text()
    assert dev_key(folder) not in cluster.programs["dev"].log.read_text()
    # The command line of no process of the cluster has it.
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert dev_key(folder) not in listed


def test_the_command_line_and_the_client_find_it(running: tuple[Cluster, Path], tmp_path: Path) -> None:
    cluster, folder = running
    for url in (cluster.control_urls[0], cluster.control_urls[0].replace("127.0.0.1", "localhost")):
        done = plane(cluster, tmp_path, "list", "--controller", url)
        assert done.returncode == 0, done.stderr
    # Without a home it is found from the folder, and from those below.
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    elsewhere = {"HOME": str(tmp_path), "XDG_STATE_HOME": ""}
    assert plane(cluster, below, "list", **elsewhere).returncode == 0
    refused = plane(cluster, tmp_path, "list", **elsewhere)
    assert refused.returncode == 1
    assert "an API key is required" in refused.stderr
    with Plane(cluster.control_urls[0]) as client:
        assert client.controller_status().status == "ok"
    with Plane(cluster.control_urls[0], token="another") as client, pytest.raises(CallRefused):
        client.backends()
    with Plane(cluster.control_urls[0], key_file=folder / ".plane" / "api-key") as client:
        client.backends()


def test_the_key_stays_and_is_not_sent_to_whoever_gets_the_port_next(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_STATE_HOME": ""}
    with dev_cluster(tmp_path, "--runtime", "process") as cluster:
        first = cluster.api_key
        cluster.programs["dev"].process.kill()
        cluster.programs["dev"].process.wait()
        assert plane(cluster, tmp_path, "list", **home).returncode == 1
        assert (tmp_path / ".plane" / "api-key").exists()
        seen = subprocess.run(
            [
                str(PLANE.parent / "python"),
                "-c",
                f"from plane.client.controller_key import find_key; print(find_key({cluster.control_urls[0]!r}))",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert seen.stdout == "None\n"
    with dev_cluster(tmp_path, "--runtime", "process") as cluster:
        assert cluster.api_key == first


def test_an_isolated_backend_does_not_see_the_key(postgres_url: str) -> None:
    if not shutil.which("bwrap"):
        real_parts.missing("bubblewrap")
    # Not below /tmp, which isolation hides as a whole.
    with tempfile.TemporaryDirectory(dir=Path.home(), prefix="plane-test-") as name:
        folder = Path(name)
        with dev_cluster(folder, "--runtime", "process", "--db", postgres_url) as cluster:
            data = folder / ".plane"
            script = f"ls -a {data}; cat {data}/api-key {data}/control-url; exit 9"
            executable = {"command": ["/bin/sh", "-c", script], "isolation": "bubblewrap"}
            backend = cluster.connect(spawn_config={"executable": executable})["backend_id"]
            said = cluster.until_status(backend, "terminated")["message"]
    assert "exited with code 9" in said
    assert cluster.api_key is not None
    assert cluster.api_key not in said
    assert "postgres" not in said
    assert "http://" not in said
