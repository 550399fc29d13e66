"""Pull the images of backends, once at a time for all that wait, and remove unused ones.

Used by `docker.runtime`. Rules: `docs/reference/protocol/drone.md`.
"""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import structlog

from plane.protocol import codec
from plane.protocol.errors import MessageError
from plane.protocol.spawn import DockerExecutable, PullPolicy, RegistryCredentials
from plane.runtime.base import BackendFailed
from plane.runtime.docker.engine import DockerEngine, EngineRefused

__all__ = ["DockerImages"]

PULL_TIMEOUT_S = 1800.0
PROGRESS_INTERVAL_S = 5.0
# An image that was requested within this time is about to be used.
RECENT_S = 600.0

log = structlog.get_logger("plane.runtime")


class DockerImages:
    """The images of one engine."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine
        self._pulls: dict[tuple[str, str], asyncio.Task[None]] = {}
        # When each image was requested last (monotonic).
        self._requested: dict[str, float] = {}

    def mark_requested(self, image: str) -> None:
        """Protect an image that is about to be used from `prune` for a while."""
        self._requested[_with_tag(image)] = time.monotonic()

    async def provide(self, executable: DockerExecutable) -> None:
        """Ensure that the image is present, following the pull policy.

        Raises:
            BackendFailed: it is not; the message says why.
        """
        self.mark_requested(executable.image)
        policy = executable.pull_policy or PullPolicy.IF_NOT_PRESENT
        if policy is not PullPolicy.ALWAYS and await self._is_present(executable.image):
            return
        if policy is PullPolicy.NEVER:
            raise BackendFailed(
                f"executable.image: {executable.image!r} is not on the drone's machine, and pull_policy is Never"
            )
        # One pull for all callers with the same credentials. It continues when a caller is cancelled.
        auth = _auth_header(executable.credentials)
        key = (_with_tag(executable.image), auth)
        pull = self._pulls.get(key)
        if pull is None:
            pull = self._pulls[key] = asyncio.create_task(self._pull(*key))
            pull.add_done_callback(lambda done: self._pulled(key, done))
        await asyncio.shield(pull)

    def _pulled(self, key: tuple[str, str], pull: asyncio.Task[None]) -> None:
        del self._pulls[key]
        if not pull.cancelled() and (error := pull.exception()):
            log.warning("image not pulled", image=key[0], error=str(error))

    async def _is_present(self, image: str) -> bool:
        try:
            await self._engine.call("inspect the image", "GET", f"images/{image}/json")
        except EngineRefused as error:
            if error.status in (400, 404):
                return False
            raise
        return True

    async def _pull(self, image: str, auth: str) -> None:
        log.info("image pull started", image=image)
        headers = {"X-Registry-Auth": auth} if auth else {}
        layers: dict[str, str] = {}
        next_report = time.monotonic() + PROGRESS_INTERVAL_S
        try:
            async with self._engine.request(
                "pull the image", "POST", "images/create", PULL_TIMEOUT_S, params={"fromImage": image}, headers=headers
            ) as response:
                while line := await response.content.readline():
                    progress = _progress(line)
                    if "error" in progress:
                        raise BackendFailed(str(progress["error"]))
                    if "id" in progress:
                        layers[str(progress["id"])] = str(progress.get("status"))
                    if time.monotonic() > next_report:
                        next_report = time.monotonic() + PROGRESS_INTERVAL_S
                        done = sum(status in ("Pull complete", "Already exists") for status in layers.values())
                        log.info("image pull in progress", image=image, layers=len(layers), layers_done=done)
        except BackendFailed as error:
            raise BackendFailed(f"executable.image: cannot pull {image!r}: {error}") from error
        log.info("image pulled", image=image)

    async def prune(self) -> None:
        """Remove images that no container uses and that were not requested recently.

        Raises:
            BackendFailed: the engine does not respond.
        """
        since = time.monotonic() - RECENT_S
        self._requested = {image: at for image, at in self._requested.items() if at > since}
        containers = await self._engine.call("list containers", "GET", "containers/json", params={"all": "true"})
        used = {container["ImageID"] for container in containers}
        for image in await self._engine.call("list images", "GET", "images/json"):
            names = [name for name in image.get("RepoTags") or () if name != "<none>:<none>"]
            if image["Id"] in used or any(name in self._requested for name in names):
                continue
            for name in names or [image["Id"]]:
                try:
                    await self._engine.call("remove the image", "DELETE", f"images/{name}")
                    log.info("unused image removed", image=name)
                except EngineRefused as error:
                    log.debug("image not removed", image=name, error=str(error))

    async def close(self) -> None:
        """Cancel all pulls."""
        for pull in self._pulls.values():
            pull.cancel()
        if self._pulls:
            await asyncio.wait(list(self._pulls.values()))


def _with_tag(image: str) -> str:
    """Return the image with ":latest" if it has neither tag nor digest; the engine would pull every tag otherwise."""
    if "@" in image or ":" in image.rpartition("/")[2]:
        return image
    return f"{image}:latest"


def _auth_header(credentials: RegistryCredentials | None) -> str:
    if credentials is None:
        return ""
    fields = {"username": credentials.username, "password": credentials.password}
    return base64.urlsafe_b64encode(codec.encode(fields)).decode()


def _progress(line: bytes) -> dict[str, Any]:
    try:
        return codec.decode(line, dict)
    except MessageError:
        return {}
