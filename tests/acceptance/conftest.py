"""The clusters on which acceptance tests run: one process, separate programs, and the same with Docker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clusters import Cluster, dev_cluster, separate_parts


@pytest.fixture(params=["dev", "separate", "docker"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of each kind."""
    if request.param == "dev":
        with dev_cluster(tmp_path, "--runtime", "process") as running:
            yield running
        return
    db = request.getfixturevalue("postgres_url")
    docker = None
    if request.param == "docker":
        docker = (request.getfixturevalue("docker_engine"), request.getfixturevalue("docker_image"))
    with separate_parts(db, tmp_path, docker=docker) as running:
        yield running


@pytest.fixture
def processes(postgres_url: str, tmp_path: Path) -> Iterator[Cluster]:
    """Two controllers, a drone that runs processes, and a proxy, as separate programs."""
    with separate_parts(postgres_url, tmp_path) as running:
        yield running
