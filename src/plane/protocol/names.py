"""Names: what may be one, and how a random one is written.

Rules: page 2, "Names". A node's name tells its kind by its prefix.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from typing import NewType

from plane.protocol.errors import InvalidCharacter, InvalidClusterName, InvalidName, NameTooLong, WrongPrefix

__all__ = [
    "ALPHABET",
    "CLUSTER_NAME_LENGTH_LIMIT",
    "NAME_LENGTH_LIMIT",
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
NAME_LENGTH_LIMIT = 45
RANDOM_LENGTH = 14
CLUSTER_NAME_LENGTH_LIMIT = 255

ControllerName = NewType("ControllerName", str)
NodeName = NewType("NodeName", str)
BackendName = NewType("BackendName", str)
ActionName = NewType("ActionName", str)
ClusterName = NewType("ClusterName", str)


class Prefix(enum.StrEnum):
    """What stands before the dash of a name; a backend's has none."""

    CONTROLLER = "co"
    DRONE = "dr"
    PROXY = "px"
    ACME_DNS_SERVER = "ns"
    BACKEND_ACTION = "ak"
    RANDOM_KEY = "lk"
    BACKEND = ""


class NodeKind(enum.StrEnum):
    """Kinds of nodes, spelt as on the wire and in the database."""

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
    """Return ``name`` if it may stand for a thing of that prefix.

    Raises:
        WrongPrefix, InvalidCharacter, NameTooLong
    """
    if len(name) > NAME_LENGTH_LIMIT:
        raise NameTooLong(name, NAME_LENGTH_LIMIT)
    if prefix is not Prefix.BACKEND and not name.startswith(f"{prefix}-"):
        raise WrongPrefix(name, prefix)
    if bad := _INVALID_IN_NAME.search(name):
        raise InvalidCharacter(name, bad[0], bad.start())
    if not name:
        raise InvalidName(name, "name is empty")
    return name


def parse_node_name(name: str) -> tuple[NodeKind, NodeName]:
    """The kind that a node's name tells, and the checked name.

    Raises:
        InvalidName: no node has such a name.
    """
    for prefix, kind in _KIND_BY_PREFIX.items():
        if name.startswith(f"{prefix}-"):
            return kind, NodeName(check_name(name, prefix))
    expected = "', '".join(f"{prefix}-" for prefix in _KIND_BY_PREFIX)
    raise InvalidName(name, f"node name {name[:80]!r} must start with one of '{expected}'")


def _host_and_port(cluster: str) -> tuple[str, str | None]:
    """Split at the last colon, unless that is one of an IPv6 host's own."""
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
    """Check ``host`` or ``host:port``; an IPv6 host stands in brackets.

    Raises:
        InvalidClusterName
    """
    host, port = _host_and_port(name)
    if len(name) > CLUSTER_NAME_LENGTH_LIMIT or not _is_host(host):
        raise InvalidClusterName(
            name, f"Invalid cluster name {name[:80]!r}: it must be HOST or HOST:PORT with a valid host name"
        )
    if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65535):
        raise InvalidClusterName(name, f"Invalid cluster name {name[:80]!r}: the port must be from 0 to 65535")
    return ClusterName(name)


def cluster_url_scheme(cluster: str) -> str:
    """``https`` for a cluster without a port or on 443, else ``http`` (page 1, "cluster")."""
    _, port = _host_and_port(cluster)
    return "https" if port in (None, "443") else "http"


def cluster_host(cluster: str) -> str:
    """The host of a cluster's name, without its port."""
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
    """The container of backend ``x`` is called ``plane-x``."""
    return f"plane-{backend}"
