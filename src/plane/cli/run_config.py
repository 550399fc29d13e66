"""`plane run-config`: runs one component from a file. `plane.cli.run_config_settings` reads its fields."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from plane.cli.run_config_file import RunConfig
from plane.cli.run_config_options import with_fields
from plane.cli.run_config_settings import Settings, settings_of
from plane.os_errors import error_reason
from plane.protocol import codec
from plane.protocol.errors import ConfigurationError, MessageError
from plane.settings import ControllerSettings, DnsSettings, DroneSettings, ExecutorSettings

if TYPE_CHECKING:
    from plane.cli.serving import Running

__all__ = ["read_config", "run_config"]


def run_config(file: Path | None = None, /, *, schema: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Run one component from a JSON file: {"Controller": {…}}, "Drone", "Proxy", "Dns" or "Executor".

    Example: plane run-config /etc/plane/controller.json

    Parameters
    ----------
    file
        JSON file of one component.
    schema
        Print the JSON schema of such files, and exit.
    """
    if schema:
        document = msgspec.json.schema(RunConfig) | {"minProperties": 1, "maxProperties": 1}
        sys.stdout.write(msgspec.json.format(codec.encode(document)).decode() + "\n")
        return
    if file is None:
        raise ConfigurationError("name a file, for example: plane run-config controller.json")
    from plane.cli.serving import serve

    config = _decode(file)
    with _errors_of(config, file):
        serve(_component(settings_of(config, file)))


def read_config(file: Path) -> Settings:
    """Return the settings of the component in a file.

    Raises:
        ConfigurationError: names the file and the field.
    """
    config = _decode(file)
    with _errors_of(config, file):
        return settings_of(config, file)


def _decode(file: Path) -> RunConfig:
    try:
        return codec.decode(file.read_bytes(), RunConfig)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error_reason(error)}") from None
    except MessageError as error:
        raise ConfigurationError(f"{file}: {error}") from None


@contextmanager
def _errors_of(config: RunConfig, file: Path) -> Iterator[None]:
    """Put the file before errors, and replace options by the fields of the file."""
    try:
        yield
    except ConfigurationError as error:
        (component,) = codec.to_builtins(config)
        raise ConfigurationError(f"{file}: {with_fields(component, str(error))}") from None


def _component(settings: Settings) -> AbstractAsyncContextManager[Running]:
    # Each branch imports only its own component.
    match settings:
        case ControllerSettings():
            from plane.controller.server import start_controller

            return start_controller(settings)
        case DroneSettings():
            from plane.drone.server import start_drone

            return start_drone(settings)
        case DnsSettings():
            from plane.dns.server import start_dns

            return start_dns(settings)
        case ExecutorSettings():
            from plane.executor.server import start_executor

            return start_executor(settings)
        case _:
            from plane.cli.proxy import proxy_component

            return proxy_component(settings)
