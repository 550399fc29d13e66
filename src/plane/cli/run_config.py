"""`plane run-config`: one component from a file.

Each field is a flag of the command of the component, which does the rest.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import CycloptsError, Parameter

from plane.cli.run_config_file import RunConfig
from plane.protocol import codec
from plane.protocol.addresses import parse_socket_address
from plane.protocol.errors import ConfigurationError, MessageError, why

__all__ = ["FLAGS", "arguments_of", "run_config"]

# For each component its command, and field to flag. "" is a field that is no flag: see `_special`.
FLAGS: dict[str, dict[str, str]] = {
    "Controller": {
        "db_url": "--db",
        "bind_addr": "",
        "id": "--name",
        "controller_url": "--controller-url",
        "default_cluster": "--default-cluster",
        "cleanup_min_age_days": "--cleanup-min-age-days",
        "cleanup_batch_size": "--cleanup-batch-size",
        "forward_auth": "--forward-auth",
        "best_of": "--best-of",
        "api_key_file": "--api-key-file",
        "allowed_hosts": "--allowed-host",
    },
    "Drone": {
        "controller_url": "--controller-url",
        "controller_key_file": "--controller-key-file",
        "cluster": "--cluster",
        "name": "--name",
        "pool": "--pool",
        "ip": "--ip",
        "db_path": "--db",
        # Deprecated in the original, and without effect.
        "cleanup_min_age": "",
        "executor_config": "",
        "executor_config.docker": "",
        "executor_config.docker.runtime": "--docker-runtime",
        "executor_config.docker.log_config": "--log-config",
        "executor_config.docker.mount_base": "--mount-base",
        "executor_config.docker.auto_prune": "--auto-prune-images",
        "executor_config.docker.cleanup_min_age": "--auto-prune-containers-older-than-seconds",
        "executor_config.unix_socket": "",
        "executor_config.unix_socket.socket_path": "--executor-socket",
        "executor_config.process": "",
        "executor_config.process.mount_base": "--mount-base",
        "executor_config.process.expose": "--expose",
        "executor_config.process.hide": "--hide",
        "executor_config.process.backend_user": "--backend-user",
        "terminate_on_exit": "--terminate-on-exit",
    },
    "Proxy": {
        "controller_url": "--controller-url",
        "controller_key_file": "--controller-key-file",
        "cluster": "--cluster",
        "name": "--name",
        "cert_path": "--cert-path",
        "port_config": "",
        "port_config.http_port": "--http-port",
        "port_config.https_port": "--https-port",
        "acme_config": "",
        "acme_config.endpoint": "--acme-endpoint",
        "acme_config.mailto_email": "--acme-email",
        "acme_config.acme_eab_keypair": "",
        "acme_config.acme_eab_keypair.key_id": "--acme-eab-kid",
        "acme_config.acme_eab_keypair.key": "--acme-eab-hmac-key",
        "acme_config.ca_file": "--acme-ca",
        "acme_config.name_server": "--acme-name-server",
        "root_redirect_url": "--root-redirect-url",
        "trusted_proxies": "--trusted-proxies",
        "proxy_protocol": "--proxy-protocol",
    },
    "Dns": {
        "controller_url": "--controller-url",
        "controller_key_file": "--controller-key-file",
        "name": "--name",
        "port": "--port",
        "zone": "--zone",
    },
}


def run_config(file: Path | None = None, /, *, schema: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Run one component from a JSON file: {"Controller": {…}}, {"Drone": {…}}, {"Proxy": {…}} or {"Dns": {…}}.

    Example: plane run-config /etc/plane/controller.json

    Parameters
    ----------
    file
        The file.
    schema
        Print a JSON schema of the file instead.
    """
    if schema:
        document = msgspec.json.schema(RunConfig) | {"minProperties": 1, "maxProperties": 1}
        sys.stdout.write(msgspec.json.format(codec.encode(document)).decode() + "\n")
        return
    if file is None:
        raise ConfigurationError("name a file, as in: plane run-config controller.json")
    try:
        config = codec.decode(file.read_bytes(), RunConfig)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {why(error)}") from None
    except MessageError as error:
        raise ConfigurationError(f"{file}: {error}") from None
    from plane.cli.main import make_program

    try:
        arguments = arguments_of(config)
        # Backends of a drone must not read what it was configured from.
        own = [f"--hide={file.resolve()}"] if arguments[0] == "drone" else []
        make_program()([*arguments, *own], print_error=False)
    except (CycloptsError, ConfigurationError) as error:
        raise ConfigurationError(f"{file}: {_with_fields(config, str(error))}") from None


def arguments_of(config: RunConfig) -> list[str]:
    """The command line that does what the file asks for.

    Raises:
        ConfigurationError: names the field.
    """
    ((component, fields),) = codec.to_builtins(config).items()
    arguments = [component.lower()]
    for field, value in _flat(fields):
        if flag := FLAGS[component][field]:
            arguments += _flag(flag, field, value)
        else:
            arguments += _special(field, value)
    return arguments


def _flat(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Fields that are set, those of inner objects with their path, behind the object itself."""
    found: list[tuple[str, Any]] = []
    for name, value in fields.items():
        field = prefix + name
        if value is None:
            continue
        found.append((field, value))
        # A log_config is Docker's object, and one value here.
        if isinstance(value, dict) and not field.endswith("log_config"):
            found += _flat(value, f"{field}.")
    return found


def _flag(flag: str, field: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, list):
        return [f"{flag}={each}" for each in value]
    if isinstance(value, dict):
        value = codec.encode(value).decode()
    if field.endswith("mailto_email"):
        value = value.removeprefix("mailto:")
    return [f"{flag}={value}"]


def _special(field: str, value: Any) -> list[str]:
    match field:
        case "bind_addr":
            try:
                host, port = parse_socket_address(value)
            except MessageError:
                raise ConfigurationError(f"bind_addr: {value!r} is not of the form IP:PORT") from None
            return [f"--host={host}", f"--port={port}"]
        case "port_config" if value.get("https_port") is not None:
            return ["--https"]
        case "executor_config.docker":
            return ["--runtime=docker"]
        case "executor_config.process":
            return ["--runtime=process"]
        case _:
            return []


def _with_fields(config: RunConfig, text: str) -> str:
    """An error of the command, which names flags, with the names of the fields."""
    (component,) = codec.to_builtins(config)
    field_of = {flag: field for field, flag in FLAGS[component].items() if flag}
    return re.sub(r"--[a-z-]+", lambda found: field_of.get(found[0], found[0]), text)
