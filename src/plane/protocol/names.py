"""Rules of names. The prefix of a node's name is its kind.

They are described in ``docs/reference/protocol/index.md``.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from typing import NewType

from plane.protocol.errors import InvalidCharacter, InvalidClusterName, InvalidName, NameTooLong, WrongPrefix

__all__ = [
    "ALPHABET",
    "MAX_CLUSTER_NAME_LENGTH",
    "MAX_NAME_LENGTH",
    "RANDOM_LENGTH",
    "ActionName",
    "BackendName",
    "ClusterName",
    "ControllerName",
    "NodeKind",
    "NodeName",
    "Prefix",
    "check_name",
    "check_subdomain",
    "cluster_host",
    "cluster_url_scheme",
    "container_name",
    "parse_cluster_name",
    "parse_node_name",
]

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
MAX_NAME_LENGTH = 45
RANDOM_LENGTH = 14
MAX_CLUSTER_NAME_LENGTH = 255

ControllerName = NewType("ControllerName", str)
NodeName = NewType("NodeName", str)
BackendName = NewType("BackendName", str)
ActionName = NewType("ActionName", str)
ClusterName = NewType("ClusterName", str)


class Prefix(enum.StrEnum):
    """The part of a name before its first dash; the name of a backend has none."""

    CONTROLLER = "co"
    DRONE = "dr"
    PROXY = "px"
    ACME_DNS_SERVER = "ns"
    BACKEND_ACTION = "ak"
    RANDOM_KEY = "lk"
    BACKEND = ""


class NodeKind(enum.StrEnum):
    """Kinds of nodes, spelled as on the wire and in the database."""

    PROXY = "Proxy"
    DRONE = "Drone"
    ACME_DNS_SERVER = "AcmeDnsServer"


_KIND_BY_PREFIX = {
    Prefix.PROXY: NodeKind.PROXY,
    Prefix.DRONE: NodeKind.DRONE,
    Prefix.ACME_DNS_SERVER: NodeKind.ACME_DNS_SERVER,
}

_INVALID_IN_NAME = re.compile(r"[^a-z0-9-]")
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z")
_SUBDOMAIN = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")


def check_name(name: str, prefix: Prefix) -> str:
    """Return ``name`` if it is a valid name with this prefix.

    Raises:
        WrongPrefix, InvalidCharacter, NameTooLong
    """
    if len(name) > MAX_NAME_LENGTH:
        raise NameTooLong(name, MAX_NAME_LENGTH)
    if prefix is not Prefix.BACKEND and not name.startswith(f"{prefix}-"):
        raise WrongPrefix(name, prefix)
    if bad := _INVALID_IN_NAME.search(name):
        raise InvalidCharacter(name, bad[0], bad.start())
    if not name:
        raise InvalidName(name, "name is empty")
    return name


def parse_node_name(name: str) -> tuple[NodeKind, NodeName]:
    """Return the kind of a node, given its name, and the checked name.

    Raises:
        InvalidName: not the name of a node.
    """
    for prefix, kind in _KIND_BY_PREFIX.items():
        if name.startswith(f"{prefix}-"):
            return kind, NodeName(check_name(name, prefix))
    expected = "', '".join(f"{prefix}-" for prefix in _KIND_BY_PREFIX)
    raise InvalidName(name, f"node name {name[:80]!r} must start with one of '{expected}'")


def _host_and_port(cluster: str) -> tuple[str, str | None]:
    """Split at the last colon, unless it is part of an IPv6 address."""
    host, colon, port = cluster.rpartition(":")
    return (host, port) if colon and not port.endswith("]") else (cluster, None)


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    return bool(host) and len(host) <= 253 and all(_HOST_LABEL.match(label) for label in host.split("."))


def parse_cluster_name(name: str) -> ClusterName:
    """Check ``host`` or ``host:port``; an IPv6 host is in brackets.

    Raises:
        InvalidClusterName
    """
    host, port = _host_and_port(name)
    if len(name) > MAX_CLUSTER_NAME_LENGTH or not _is_host(host) or not (port is None or re.fullmatch(r"[0-9]+", port)):
        raise InvalidClusterName(
            name, f"Invalid cluster name {name[:80]!r}: it must be HOST or HOST:PORT with a valid host name"
        )
    if port is not None and int(port) > 65535:
        raise InvalidClusterName(name, f"Invalid cluster name {name[:80]!r}: the port must be from 0 to 65535")
    return ClusterName(name)


def cluster_url_scheme(cluster: str) -> str:
    """Return ``https`` for a cluster without a port or with port 443, else ``http``."""
    _, port = _host_and_port(cluster)
    return "https" if port in (None, "443") else "http"


def cluster_host(cluster: str) -> str:
    """Return the host of a cluster's name, without the port."""
    host, _ = _host_and_port(cluster)
    return host


def check_subdomain(subdomain: str) -> str:
    """Return a subdomain of lower-case ASCII letters, digits and inner dashes, at most 63 characters.

    Raises:
        InvalidName
    """
    if not _SUBDOMAIN.match(subdomain):
        raise InvalidName(
            subdomain,
            f"subdomain {subdomain[:80]!r} may have a-z, 0-9 and - only, no - first or last, and 1 to 63 characters",
        )
    return subdomain


def container_name(backend: str) -> str:
    """Return the name of a backend's container."""
    return f"plane-{backend}"
