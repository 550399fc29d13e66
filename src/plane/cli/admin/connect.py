"""`plane admin connect`."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from plane.cli.admin.follow import follow
from plane.cli.admin.options import DEFAULT_CONTROLLER, ControllerOptions
from plane.cli.output import AsJson, console, print_json
from plane.protocol.errors import ConfigurationError

if TYPE_CHECKING:
    from plane.client import DockerExecutable, ProcessExecutable

__all__ = ["connect"]

# PORT is known only when the process starts, so a shell must expand it. The words are commands of the shell itself.
_SHELL_SYNTAX = re.compile(r"[$;&|<>`]|^\s*(exec|cd|export|ulimit|umask)\s")


async def connect(
    *,
    image: str | None = None,
    command: str | None = None,
    env: Annotated[list[str] | None, Parameter(negative="")] = None,
    cluster: str | None = None,
    key: str | None = None,
    immediate: Annotated[bool, Parameter(negative="")] = False,
    max_idle_seconds: int = 500,
    id: str | None = None,
    static_token: Annotated[bool, Parameter(negative="")] = False,
    pool: str = "",
    mount: str | None = None,
    subdomain: str | None = None,
    rewrite_prefix: Annotated[bool, Parameter(negative="")] = False,
    token_in_cookie: Annotated[bool, Parameter(negative="")] = False,
    user: str | None = None,
    as_json: AsJson = False,
    controller: ControllerOptions = DEFAULT_CONTROLLER,
) -> None:
    """Get the URL of a key's process. It is started if there is none, and followed until it is ready.

    Examples:

    plane admin connect --image ghcr.io/example/app --key my-document

    plane admin connect --command 'python3 -m http.server $PORT' --key files

    Parameters
    ----------
    image
        Docker image to run if no process holds the key.
    command
        Command line to run instead of an image, on drones that run processes; $PORT in it is the port to listen on.
    env
        Environment variable of the process as NAME=VALUE; may be given several times.
    cluster
        Cluster to start in; default the controller's.
    key
        Key of the process; without one, a new process is started.
    immediate
        Return without waiting until it is ready.
    max_idle_seconds
        The process is stopped after this long without connections.
    id
        Name of the backend if it is started; default random.
    static_token
        Use one token for all connect requests, instead of a new one for each.
    pool
        Pool of drones to start in.
    mount
        Folder to mount at /plane-data: true for one named after the key, or a relative path.
    subdomain
        Subdomain of the cluster under which the process is reached.
    rewrite_prefix
        Put absolute redirects and cookie paths of the process below the token.
    token_in_cookie
        With a subdomain: keep the token in a cookie instead of the path, for processes that use absolute paths.
    user
        User name that the process receives with each request through the URL.
    """
    from msgspec import UNSET

    from plane.client import BackendStatus, KeyConfig, SpawnConfig

    # Most likely of a variable that is not set. All of its users would share one process.
    if key == "":
        raise ConfigurationError("--key is empty; leave it out to start a process without a key")
    spawn = SpawnConfig(
        executable=_executable(image, command, env or [], mount),
        id=id,
        cluster=cluster,
        pool=pool,
        max_idle_seconds=max_idle_seconds,
        use_static_token=static_token,
        subdomain=subdomain,
        rewrite_prefix=rewrite_prefix or UNSET,
        token_in_cookie=token_in_cookie or UNSET,
    )
    async with controller.client() as plane:
        response = await plane.connect(None if key is None else KeyConfig(name=key), spawn, user=user)
        if as_json:
            print_json(response)
        else:
            out = console()
            out.print(f"{'Created' if response.spawned else 'Reusing'} backend: {response.backend_id}", markup=False)
            out.print(f"URL: {response.url}", markup=False, soft_wrap=True)
            out.print(f"Status URL: {response.status_url}", markup=False, soft_wrap=True)
            if response.drone is not None:
                out.print(f"Drone: {response.drone}", markup=False)
        if not immediate:
            await follow(plane, response.backend_id, BackendStatus.READY, as_json=as_json)


def _executable(
    image: str | None, command: str | None, env: list[str], mount: str | None
) -> DockerExecutable | ProcessExecutable:
    from plane.client import DockerExecutable, ProcessExecutable

    if (image is None) == (command is None):
        raise ConfigurationError("name what to run: either --image or --command")
    variables = {}
    for setting in env:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise ConfigurationError(f"--env {setting!r} is not of the form NAME=VALUE")
        variables[name] = value
    mount_option = {"true": True, "false": False}.get(mount or "", mount)
    if image is not None:
        return DockerExecutable(image=image, env=variables, mount=mount_option)
    assert command is not None
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"--command cannot be split into words: {error}") from None
    if not words:
        raise ConfigurationError("--command is empty; name a program and its arguments")
    if _SHELL_SYNTAX.search(command):
        words = ["/bin/sh", "-c", command]
    return ProcessExecutable(command=words, env=variables, mount=mount_option)
