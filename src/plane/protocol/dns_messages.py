"""Messages between ACME DNS servers and controllers."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from plane.protocol.codec import Variants

__all__ = ["MessageFromDns", "MessageToDns", "TxtRecordRequest", "TxtRecordResponse"]


class TxtRecordRequest(msgspec.Struct, frozen=True):
    """Requests the TXT value of a cluster's challenge."""

    cluster: str


class TxtRecordResponse(msgspec.Struct, frozen=True):
    """``txt_value`` is ``None`` if there is none.

    ``other_values`` (absent if there are none, and from Plane 0.5.5) are further values of the same name: the
    challenges of the apex and of the wildcard share one.
    """

    cluster: str
    txt_value: str | None
    other_values: tuple[str, ...] | UnsetType | None = UNSET

    @property
    def values(self) -> tuple[str, ...]:
        """All TXT values."""
        first = () if self.txt_value is None else (self.txt_value,)
        return first + (self.other_values or ())


class MessageFromDns(Variants, frozen=True, kw_only=True):
    """A message from a DNS server."""

    txt_record_request: TxtRecordRequest | UnsetType = UNSET


class MessageToDns(Variants, frozen=True, kw_only=True):
    """A message to a DNS server."""

    txt_record_response: TxtRecordResponse | UnsetType = UNSET
