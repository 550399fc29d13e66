"""What cannot run ends in `terminated` or a 400, with a message that says what to do; nothing is left running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clusters import Cluster, separate_parts


@pytest.fixture(scope="module", params=["process", "docker"])
def impatient(
    request: pytest.FixtureRequest, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster whose drone waits three seconds for a backend to answer."""
    docker = None
    if request.param == "docker":
        docker = (request.getfixturevalue("docker_engine"), request.getfixturevalue("docker_image"))
    options = ("--startup-timeout", "3", "--terminate-on-exit")
    folder = tmp_path_factory.mktemp("impatient")
    with separate_parts(module_postgres_url, folder, controllers=1, docker=docker, drone=options) as running:
        yield running


def ended(cluster: Cluster, executable: Any) -> dict[str, Any]:
    backend = cluster.connect(key={"name": "k"}, spawn_config={"executable": executable})["backend_id"]
    return cluster.until_status(backend, "terminated")


def test_what_does_not_exist(impatient: Cluster) -> None:
    if impatient.image is None:
        entry = ended(impatient, {"command": ["no-such-program"]})
        assert "'no-such-program' does not exist on the drone's machine" in entry["message"]
        assert "install it there" in entry["message"]
        entry = ended(impatient, {"command": ["true"], "cwd": "/no/such/folder"})
        assert "'/no/such/folder' is not a folder" in entry["message"]
    else:
        entry = ended(impatient, {"image": "no-such-image", "pull_policy": "Never"})
        assert "'no-such-image' is not on the drone's machine" in entry["message"]


def test_one_that_never_listens(impatient: Cluster) -> None:
    entry = ended(impatient, impatient.executable(MODE="silent"))
    assert entry["termination_reason"] == "startuptimeout"
    assert entry["termination_kind"] == "hard"
    assert "did not respond to HTTP within 3 s: " in entry["message"]


def test_one_that_exits_while_starting(impatient: Cluster) -> None:
    entry = ended(impatient, impatient.executable(MODE="exit"))
    assert entry["exit_error"] is True
    assert "exited with code 3" in entry["message"]
    assert "cannot go on" in entry["message"]


@pytest.mark.parametrize(
    ("executable", "says"),
    [
        ({}, "command"),
        ({"command": "a string"}, "$.command"),
        ({"command": []}, "command"),
        ({"command": ["true"], "env": {"A": 1}}, "env"),
        ({"command": ["true"], "isolation": "chroot"}, "isolation"),
        ({"command": ["true"], "user": "no-such-user"}, "there is no user 'no-such-user'"),
        ({"image": "an/image"}, "a drone with Docker"),
    ],
)
def test_executables_of_the_wrong_shape(processes: Cluster, executable: Any, says: str) -> None:
    message = ended(processes, executable)["message"]
    assert message.startswith("executable")
    assert says.removeprefix("$") in message


def test_an_executable_that_is_no_object_is_refused(processes: Cluster) -> None:
    answer = processes.call("POST", "/ctrl/connect", {"spawn_config": {"executable": ["true"]}})
    assert answer.status == 400
    assert answer.json()["message"].startswith("spawn_config.executable: must be an object")


def test_a_command_for_a_docker_drone(
    docker_engine: Path, docker_image: str, postgres_url: str, tmp_path: Path
) -> None:
    docker = (docker_engine, docker_image)
    with separate_parts(postgres_url, tmp_path, controllers=1, docker=docker) as cluster:
        assert "this drone runs images, not commands" in ended(cluster, {"command": ["true"]})["message"]
        assert (
            "memory_limit"
            in ended(cluster, {"image": docker_image, "resource_limits": {"memory_limit_bytes": "x"}})["message"]
        )
