"""The clusters on which acceptance tests run: one process, separate programs, and the same with Docker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.clusters import Cluster, dev_cluster, separate_parts

# Fixtures of a module that start a cluster: tests that share one run on the same worker.
SHARED = ("cluster", "processes", "impatient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that share a cluster to one worker; without this each worker would start its own."""
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("xdist_group") is None:
            for name in SHARED:
                if name in item.fixturenames and _is_shared(item, name):
                    kind = item.callspec.params.get(name, "") if hasattr(item, "callspec") else ""
                    item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-{name}-{kind}"))
                    break


def _is_shared(item: pytest.Function, name: str) -> bool:
    definitions = item._fixtureinfo.name2fixturedefs.get(name)
    return definitions is not None and definitions[-1].scope == "module"


@pytest.fixture(scope="module", params=["dev", "separate", "docker"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of each kind; for all tests of a module, which must leave its parts alone."""
    folder = tmp_path_factory.mktemp("cluster")
    if request.param == "dev":
        with dev_cluster(folder, "--runtime", "process") as running:
            yield running
        return
    db = request.getfixturevalue("module_postgres_url")
    docker = None
    if request.param == "docker":
        docker = (request.getfixturevalue("docker_engine"), request.getfixturevalue("docker_image"))
    with separate_parts(db, folder, docker=docker) as running:
        yield running


@pytest.fixture(scope="module")
def processes(module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two controllers, a drone that runs processes, and a proxy, as separate programs; for all tests of a module."""
    with separate_parts(module_postgres_url, tmp_path_factory.mktemp("processes")) as running:
        yield running
