"""Finds the API key for a controller: in the environment, in a key file, or of a running `plane dev`.

`AsyncPlane` and all commands use it, so that keys need not be in arguments or URLs.
"""

from __future__ import annotations

import os
from pathlib import Path

from plane.client.dev_key import running_dev_key
from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError

__all__ = ["KEY_FILE_VARIABLE", "KEY_VARIABLE", "find_key", "read_key_file"]

KEY_VARIABLE = "PLANE_CONTROLLER_KEY"
KEY_FILE_VARIABLE = "PLANE_CONTROLLER_KEY_FILE"


def find_key(base: str) -> str | None:
    """Return the key for the controller at ``base``; None if there is none.

    The first of: ``PLANE_CONTROLLER_KEY``, the file that ``PLANE_CONTROLLER_KEY_FILE`` names, and the key of a
    `plane dev` of this user that runs at ``base``.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    if key := os.environ.get(KEY_VARIABLE, "").strip():
        return key
    if path := os.environ.get(KEY_FILE_VARIABLE):
        return read_key_file(Path(path), KEY_FILE_VARIABLE)
    return running_dev_key(base)


def read_key_file(path: Path, named_by: str) -> str:
    """Return the key in a file: its only line.

    Args:
        named_by: the option or variable, for the error.

    Raises:
        ConfigurationError: the file cannot be read, or does not have exactly one key.
    """
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{named_by}: {path} cannot be read: {error_reason(error)}") from None
    if not key or any(character.isspace() for character in key):
        raise ConfigurationError(f"{named_by}: {path} must have exactly one line, the API key")
    return key
