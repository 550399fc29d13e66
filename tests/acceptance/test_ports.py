"""A port belongs to one living backend, also when many start slowly at once and their drone is killed meanwhile."""

from __future__ import annotations

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.clusters import Cluster, separate_parts, until

STARTED = re.compile(r"process started .*?backend=(\S+) .*?port=(\d+)")
BURST = 100
SLOW = {"executable": {"command": ["sleep", "600"]}}


def ports_given(cluster: Cluster) -> dict[str, str]:
    return dict(STARTED.findall(re.sub(r"\x1b\[[0-9;]*m", "", cluster.programs["drone"].log.read_text())))


def start_many(cluster: Cluster, count: int, first: int) -> None:
    def start(number: int) -> None:
        cluster.connect(spawn_config=SLOW, key={"name": f"key-{number}"})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(first, first + count)))


def test_slow_starting_backends_never_share_a_port(postgres_url: str, tmp_path: Path) -> None:
    with separate_parts(postgres_url, tmp_path, controllers=1, drone=()) as cluster:
        drone = cluster.programs["drone"]
        start_many(cluster, BURST, 0)
        drone.says("process started", BURST)
        assert len(set(ports_given(cluster).values())) == BURST
        drone.stop(signal.SIGKILL)
        drone = cluster.start_again("drone")
        drone.says("connected to controller", 2)
        start_many(cluster, BURST // 2, BURST)
        # Those of the first burst whose start was not stored yet are started again.
        until(lambda: len(ports_given(cluster)) == BURST + BURST // 2)
        for backend in cluster.spawned:
            cluster.until_status(backend, "waiting")
        given = ports_given(cluster)
        assert len(set(given.values())) == len(given)
