"""Removes stopped containers of this drone, and those of drones that mark none as theirs. Used by `docker.runtime`.

Never one that is not a backend's, never one that runs, never one that another drone may still want to look at.
Rule: page 4, "Prune".
"""

from __future__ import annotations

import time
from collections.abc import Collection

import structlog

from plane.protocol import codec
from plane.runtime.docker.config import DRONE_LABEL, LABEL
from plane.runtime.docker.engine import DockerEngine, parse_time_ns

__all__ = ["prune_containers"]

# One that was made and never started may be about to be.
NEVER_STARTED_S = 600.0

log = structlog.get_logger("plane.runtime")


async def prune_containers(engine: DockerEngine, drone: str, in_use: Collection[str], after_s: float) -> None:
    """Remove what ended ``after_s`` ago and is not ``in_use``.

    Raises:
        BackendFailed: the engine does not answer.
    """
    filters = codec.encode({"label": [LABEL], "status": ["created", "exited", "dead"]}).decode()
    params = {"all": "true", "filters": filters}
    for container in await engine.call("list containers", "GET", "containers/json", params=params):
        names = {name.lstrip("/") for name in container["Names"]}
        if container["Labels"].get(DRONE_LABEL, drone) != drone or not names.isdisjoint(in_use):
            continue
        found = await engine.inspect(container["Id"])
        if found is None:
            continue
        never_started = found["State"]["Status"] == "created"
        since = found["Created"] if never_started else found["State"]["FinishedAt"]
        age_s = time.time() - parse_time_ns(since) / 1e9
        if age_s >= (max(after_s, NEVER_STARTED_S) if never_started else after_s):
            # Not by force: if it has been started meanwhile, it stays.
            await engine.remove(container["Id"], force=False)
            log.info("stopped container removed", container=", ".join(names))
