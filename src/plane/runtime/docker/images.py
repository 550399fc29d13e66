"""Images for backends: pulled once at a time however many wait, and removed when nobody uses them.

Used by `docker.runtime`. Rules: page 4, "Docker" and "Prune".
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

PULL_LIMIT_S = 1800.0
PROGRESS_INTERVAL_S = 5.0
# An image that was asked for so recently is about to be used.
FRESH_S = 600.0

log = structlog.get_logger("plane.runtime")


class DockerImages:
    """The images of one engine."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine
        self._pulls: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._asked_for: dict[str, float] = {}

    def asked_for(self, image: str) -> None:
        """The image is about to be used, and is not to be removed."""
        self._asked_for[_with_tag(image)] = time.monotonic()

    async def provide(self, wanted: DockerExecutable) -> None:
        """See to it that the image is there, as the pull policy says.

        Raises:
            BackendFailed: it is not; says why.
        """
        self.asked_for(wanted.image)
        policy = wanted.pull_policy or PullPolicy.IF_NOT_PRESENT
        if policy is not PullPolicy.ALWAYS and await self._is_there(wanted.image):
            return
        if policy is PullPolicy.NEVER:
            raise BackendFailed(
                f"executable.image: {wanted.image!r} is not on the drone's machine, and pull_policy is Never"
            )
        # One pull for all who wait for it with the same credentials; it goes on if one of them goes.
        auth = _auth_header(wanted.credentials)
        what = (_with_tag(wanted.image), auth)
        pull = self._pulls.get(what)
        if pull is None:
            pull = self._pulls[what] = asyncio.create_task(self._pull(_with_tag(wanted.image), auth))
            pull.add_done_callback(lambda done: self._pulled(what, done))
        await asyncio.shield(pull)

    def _pulled(self, what: tuple[str, str], pull: asyncio.Task[None]) -> None:
        del self._pulls[what]
        if not pull.cancelled() and (error := pull.exception()):
            log.warning("image not pulled", image=what[0], error=str(error))

    async def _is_there(self, image: str) -> bool:
        try:
            await self._engine.call("inspect the image", "GET", f"images/{image}/json")
        except EngineRefused as error:
            if error.status in (400, 404):
                return False
            raise
        return True

    async def _pull(self, image: str, auth: str) -> None:
        log.info("pulling", image=image)
        headers = {"X-Registry-Auth": auth} if auth else {}
        layers: dict[str, str] = {}
        next_word = time.monotonic() + PROGRESS_INTERVAL_S
        try:
            async with self._engine.answer(
                "pull it", "POST", "images/create", PULL_LIMIT_S, params={"fromImage": image}, headers=headers
            ) as response:
                while line := await response.content.readline():
                    step = _step(line)
                    if "error" in step:
                        raise BackendFailed(str(step["error"]))
                    if "id" in step:
                        layers[str(step["id"])] = str(step.get("status"))
                    if time.monotonic() > next_word:
                        next_word = time.monotonic() + PROGRESS_INTERVAL_S
                        done = sum(status in ("Pull complete", "Already exists") for status in layers.values())
                        log.info("pulling", image=image, layers=len(layers), layers_done=done)
        except BackendFailed as error:
            raise BackendFailed(f"executable.image: cannot pull {image!r}: {error}") from error
        log.info("pulled", image=image)

    async def prune(self) -> None:
        """Remove images that no container uses, and that nobody has asked for lately."""
        fresh = time.monotonic() - FRESH_S
        self._asked_for = {image: at for image, at in self._asked_for.items() if at > fresh}
        containers = await self._engine.call("list containers", "GET", "containers/json", params={"all": "true"})
        used = {container["ImageID"] for container in containers}
        for image in await self._engine.call("list images", "GET", "images/json"):
            names = [name for name in image.get("RepoTags") or () if name != "<none>:<none>"]
            if image["Id"] in used or any(name in self._asked_for for name in names):
                continue
            for name in names or [image["Id"]]:
                try:
                    await self._engine.call("remove the image", "DELETE", f"images/{name}")
                    log.info("unused image removed", image=name)
                except EngineRefused as error:
                    log.debug("image not removed", image=name, error=str(error))

    async def close(self) -> None:
        """Give up what is being pulled."""
        for pull in self._pulls.values():
            pull.cancel()
        if self._pulls:
            await asyncio.wait(list(self._pulls.values()))


def _with_tag(image: str) -> str:
    """With ":latest" where neither tag nor digest is given: without, the engine pulls every tag there is."""
    if "@" in image or ":" in image.rpartition("/")[2]:
        return image
    return f"{image}:latest"


def _auth_header(credentials: RegistryCredentials | None) -> str:
    if credentials is None:
        return ""
    words = {"username": credentials.username, "password": credentials.password}
    return base64.urlsafe_b64encode(codec.encode(words)).decode()


def _step(line: bytes) -> dict[str, Any]:
    try:
        return codec.decode(line, dict)
    except MessageError:
        return {}
