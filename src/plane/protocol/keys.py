"""Keys, their leases and fencing tokens."""

from __future__ import annotations

import msgspec

from plane.protocol.codec import Int64
from plane.protocol.times import DroneTime

__all__ = ["AcquiredKey", "KeyConfig", "KeyDeadlines"]


class KeyConfig(msgspec.Struct, frozen=True):
    """A key that a client requests. (namespace, name) is unique; ``tag`` must match the holder's."""

    name: str
    namespace: str = ""
    tag: str = ""


class KeyDeadlines(msgspec.Struct, frozen=True):
    """When to renew a lease, and when to terminate its backend, on the drone's clock."""

    renew_at: DroneTime
    soft_terminate_at: DroneTime
    hard_terminate_at: DroneTime


class AcquiredKey(msgspec.Struct, frozen=True):
    """A key that a backend holds; ``token`` is the fencing token, which rises with each acquisition of the key."""

    key: KeyConfig
    deadlines: KeyDeadlines
    token: Int64
