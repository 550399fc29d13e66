"""Remove stopped backend containers of this drone, and those without a drone label. Used by `docker.runtime`.

Containers that run, that are not backends, or that carry the label of another drone are never removed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

import structlog

from plane.protocol import codec
from plane.runtime.docker.config import LABEL
from plane.runtime.docker.engine import DockerEngine, parse_time_ns

__all__ = ["prune_containers"]

# A container that was created and never started may be about to be started.
NEVER_STARTED_AGE_S = 600.0

log = structlog.get_logger("plane.runtime")


async def prune_containers(
    engine: DockerEngine, labels: Mapping[str, str], in_use: Collection[str], after_s: float
) -> None:
    """Remove the containers that ended at least ``after_s`` ago and whose names are not ``in_use``.

    Args:
        labels: of the drone's containers. Original drones set none of these labels.

    Raises:
        BackendFailed: the engine does not respond.
    """
    filters = codec.encode({"label": [LABEL], "status": ["created", "exited", "dead"]}).decode()
    params = {"all": "true", "filters": filters}
    for container in await engine.call("list containers", "GET", "containers/json", params=params):
        names = {name.lstrip("/") for name in container["Names"]}
        is_own = all(container["Labels"].get(name, value) == value for name, value in labels.items())
        if not is_own or not names.isdisjoint(in_use):
            continue
        found = await engine.inspect(container["Id"])
        if found is None:
            continue
        never_started = found["State"]["Status"] == "created"
        since = found["Created"] if never_started else found["State"]["FinishedAt"]
        age_s = time.time() - parse_time_ns(since) / 1e9
        if age_s >= (max(after_s, NEVER_STARTED_AGE_S) if never_started else after_s):
            # Without force: a container that has been started meanwhile stays.
            await engine.remove(container["Id"], force=False)
            log.info("stopped container removed", container=", ".join(names))
