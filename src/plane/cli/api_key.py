"""`plane api-key`: makes an API key and its line for ``--api-key-file``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from plane.decisions.access import Role, key_entry, parse_api_keys
from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError
from plane.random_ids import random_token

__all__ = ["api_key"]

# For keys that were not made here; those have 46 characters.
MIN_KEY_LENGTH = 20


def api_key(
    name: str,
    /,
    *,
    role: Role = Role.CONNECT,
    file: Path | None = None,
    hash_stdin: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Make an API key, and its line for a controller's file of keys.

    The key is printed to stdout once; the file has only its hash. A running controller reloads the file on SIGHUP.

    Example: plane api-key ci --role connect --file /etc/plane/api-keys

    Parameters
    ----------
    name
        Owner of the key, for logs and errors. No spaces.
    role
        admin: everything. connect: connect, terminate, revoke and read. read: read only. node: for drones, proxies
        and DNS servers.
    file
        Append the line to this file. Default: print it to stderr.
    hash_stdin
        Read an existing key from stdin instead of making one.
    """
    if not name or any(character.isspace() for character in name) or name.startswith("#"):
        raise ConfigurationError(f"{name!r} cannot be the name of a key: it must have no spaces and not begin with #")
    key = sys.stdin.readline().strip() if hash_stdin else f"pk_{random_token()}"
    if len(key) < MIN_KEY_LENGTH:
        raise ConfigurationError(f"a key needs at least {MIN_KEY_LENGTH} characters, or its hash could be guessed")
    entry = key_entry(name, role, key)
    if file is None:
        print(entry, file=sys.stderr)  # noqa: T201
    else:
        _append(file, entry)
    if not hash_stdin:
        print(key)  # noqa: T201


def _append(file: Path, entry: str) -> None:
    try:
        text = file.read_text() if file.exists() else ""
        separator = "\n" if text and not text.endswith("\n") else ""
        parse_api_keys(text + separator + entry)
        file.touch(mode=0o600)
        with file.open("a") as keys:
            keys.write(f"{separator}{entry}\n")
    except (OSError, UnicodeError, ConfigurationError) as error:
        raise ConfigurationError(f"--file {file}: {error_reason(error)}") from error
