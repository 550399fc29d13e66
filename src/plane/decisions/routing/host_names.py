"""Under which names is a proxy reached? The cluster's name, and others that an operator declares as equivalent.

`plane.decisions.http.request_head` normalizes `Host` with it. All later rules know only the cluster's own name.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HostNames", "normal_host"]


def normal_host(host: bytes) -> bytes:
    """Return a host in lower case and without ":443", for comparison."""
    return host.lower().removesuffix(b":443")


@dataclass(frozen=True, slots=True)
class HostNames:
    """The names of one proxy, each as by `normal_host`.

    Attributes:
        cluster: the cluster's own name.
        public: equivalent names, such as that of a forwarded port.
    """

    cluster: bytes
    public: tuple[bytes, ...] = ()

    def canonical(self, host: bytes) -> bytes:
        """Return ``host`` with the cluster's name in place of a public one; any other host unchanged."""
        if not self.public:
            return host
        normal = normal_host(host)
        for name in self.public:
            if normal == name:
                return self.cluster
            if normal.endswith(b"." + name):
                return normal.removesuffix(name) + self.cluster
        return host

    def include(self, host: bytes) -> bool:
        """Return whether a host is one of the names, or below one."""
        normal = normal_host(host)
        return any(normal == name or normal.endswith(b"." + name) for name in (self.cluster, *self.public))
