"""Parses values of options into the types of settings. Errors name the option."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from plane.decisions.http.request_source import host_name
from plane.decisions.http.trusted_proxies import Network, parse_networks
from plane.os_errors import error_reason
from plane.protocol import codec
from plane.protocol.errors import ConfigurationError, InvalidName, MessageError
from plane.protocol.names import (
    ClusterName,
    ControllerName,
    NodeName,
    Prefix,
    check_name,
    parse_cluster_name,
)
from plane.random_ids import random_name

__all__ = [
    "cluster_name",
    "controller_name",
    "exposed_paths",
    "host_argument",
    "http_url",
    "ip_address",
    "json_object",
    "node_name",
    "public_url",
    "trusted_networks",
    "webhook_networks",
]


def cluster_name(text: str, flag: str = "--cluster") -> ClusterName:
    """Parse a cluster's name.

    Raises:
        ConfigurationError
    """
    try:
        return parse_cluster_name(text)
    except InvalidName as error:
        raise ConfigurationError(f"{flag}: {error}") from None


def node_name(text: str | None, prefix: Prefix) -> NodeName:
    """Parse a node's name; None gives a random one.

    Raises:
        ConfigurationError
    """
    return NodeName(_name(text, prefix))


def controller_name(text: str | None) -> ControllerName:
    """Parse a controller's name; None gives a random one.

    Raises:
        ConfigurationError
    """
    return ControllerName(_name(text, Prefix.CONTROLLER))


def _name(text: str | None, prefix: Prefix) -> str:
    if text is None:
        return random_name(prefix)
    try:
        return check_name(text, prefix)
    except InvalidName as error:
        raise ConfigurationError(f"--name: {error}") from None


def http_url(text: str, flag: str) -> str:
    """Parse an HTTP URL.

    Raises:
        ConfigurationError
    """
    try:
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return text
    except ValueError:
        pass
    raise ConfigurationError(f"{flag}: {text!r} is not of the form http://HOST[:PORT]/PATH or https://…")


def public_url(text: str | None) -> str | None:
    """Parse ``--controller-url`` of a controller, and remove slashes at its end; None or an empty text gives None.

    Raises:
        ConfigurationError
    """
    return http_url(text, "--controller-url").rstrip("/") if text else None


def host_argument(text: str, flag: str) -> str:
    """Parse a host's name or address, without a port.

    Raises:
        ConfigurationError
    """
    name = host_name(text)
    if name is None or ":" in text.rpartition("]")[2]:
        raise ConfigurationError(f"{flag}: {text!r} is not the name of a host, such as plane-controller.internal")
    return name


def ip_address(text: str, flag: str = "--ip") -> str:
    """Parse an IP address, or resolve a host name to its first one.

    Raises:
        ConfigurationError
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigurationError(
            f"{flag}: {text!r} is not an IP address and cannot be resolved: {error_reason(error)}"
        ) from None
    return str(found[0][4][0])


def json_object(text: str | None, flag: str) -> dict[str, Any] | None:
    """Parse a JSON object; None gives None.

    Raises:
        ConfigurationError
    """
    if text is None:
        return None
    try:
        value: dict[str, Any] = codec.decode(text, dict)
    except MessageError as error:
        raise ConfigurationError(f"{flag}: must be a JSON object: {error}") from None
    return value


def trusted_networks(texts: Sequence[str], *, proxy_protocol: bool) -> tuple[Network, ...]:
    """Parse the networks of trusted load balancers.

    Raises:
        ConfigurationError
    """
    if proxy_protocol and not texts:
        raise ConfigurationError("--proxy-protocol needs --trusted-proxies: the header is read from no other peer")
    try:
        return parse_networks(texts)
    except ValueError as error:
        raise ConfigurationError(f"--trusted-proxies: {error}; write a network as 10.0.0.0/8, or an address") from None


def webhook_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse the networks that webhooks may send to although they are not public.

    Raises:
        ConfigurationError
    """
    try:
        return parse_networks(texts)
    except ValueError as error:
        raise ConfigurationError(
            f"--webhook-allow-network: {error}; write a network as 10.0.0.0/8, or an address"
        ) from None


def exposed_paths(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the absolute paths of ``--expose``.

    Raises:
        ConfigurationError: one does not exist, so that no isolated process could start.
    """
    for path in paths:
        if not path.exists():
            raise ConfigurationError(f"--expose: {path} does not exist")
    return tuple(path.absolute() for path in paths)
