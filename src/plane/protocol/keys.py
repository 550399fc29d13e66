"""Keys: what is held, until when, and with which fencing token."""

from __future__ import annotations

import msgspec

from plane.protocol.codec import Int64
from plane.protocol.times import DroneTime

__all__ = ["AcquiredKey", "KeyConfig", "KeyDeadlines"]


class KeyConfig(msgspec.Struct, frozen=True):
    """What a client asks for. (namespace, name) is unique; ``tag`` must match the holder's."""

    name: str
    namespace: str = ""
    tag: str = ""


class KeyDeadlines(msgspec.Struct, frozen=True):
    """When to renew a lease and when to give up, in the drone's clock."""

    renew_at: DroneTime
    soft_terminate_at: DroneTime
    hard_terminate_at: DroneTime


class AcquiredKey(msgspec.Struct, frozen=True):
    """A held key; ``token`` is the fencing token, which rises with each acquisition of the same key."""

    key: KeyConfig
    deadlines: KeyDeadlines
    token: Int64
