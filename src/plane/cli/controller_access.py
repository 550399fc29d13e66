"""The URL of a controller and the key for it, from options and environment; for nodes and `plane admin`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from plane.transport.controller_url import ControllerUrl

__all__ = ["KeyFileOption", "controller_access", "key_files"]

KeyFileOption = Annotated[
    Path | None,
    Parameter(
        name="--controller-key-file",
        help="File with the API key for the controller; default PLANE_CONTROLLER_KEY, or the file that "
        "PLANE_CONTROLLER_KEY_FILE names, or that of a running `plane dev`.",
    ),
]


def key_files(key_file: Path | None) -> tuple[Path, ...]:
    """Return the key files that the option and the environment name."""
    from plane.client.controller_key import KEY_FILE_VARIABLE

    named = os.environ.get(KEY_FILE_VARIABLE)
    return tuple(path for path in (key_file, Path(named) if named else None) if path is not None)


def controller_access(url: str, key_file: Path | None) -> ControllerUrl:
    """Return the controller's URL with the key: that of the file, else of the URL, else of `find_key`.

    Raises:
        ConfigurationError: the URL is malformed, or the file cannot be read.
    """
    from plane.client.controller_key import find_key, read_key_file
    from plane.transport.controller_url import ControllerUrl

    parsed = ControllerUrl.parse(url)
    if parsed.bearer_token is not None and any(url in argument for argument in sys.argv):
        # Every user of the machine can read the command line and use the key.
        from plane.cli.logs import set_up_logs
        from plane.cli.plain_structlog import structlog

        set_up_logs()
        structlog.get_logger("plane.cli").warning(
            "api key in a command line",
            reason="every user of this machine can read it with ps",
            instead="--controller-key-file or PLANE_CONTROLLER_KEY",
            controller=parsed.base,
        )
    if key_file is not None:
        return parsed.with_key(read_key_file(key_file, "--controller-key-file"))
    return parsed if parsed.bearer_token is not None else parsed.with_key(find_key(parsed.base))
