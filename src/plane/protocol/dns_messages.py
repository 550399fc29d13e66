"""What the ACME DNS server and controllers tell each other."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from plane.protocol.codec import Variants

__all__ = ["MessageFromDns", "MessageToDns", "TxtRecordRequest", "TxtRecordResponse"]


class TxtRecordRequest(msgspec.Struct, frozen=True):
    """What is the TXT value of this cluster?"""

    cluster: str


class TxtRecordResponse(msgspec.Struct, frozen=True):
    """``txt_value`` is ``None`` when there is none.

    ``other_values`` (absent when there are none, and from originals) are further values of the same name: the
    challenges of the apex and of the wildcard share one.
    """

    cluster: str
    txt_value: str | None
    other_values: tuple[str, ...] | UnsetType | None = UNSET

    @property
    def values(self) -> tuple[str, ...]:
        """All values."""
        first = () if self.txt_value is None else (self.txt_value,)
        return first + (self.other_values or ())


class MessageFromDns(Variants, frozen=True, kw_only=True):
    """One frame from a DNS server."""

    txt_record_request: TxtRecordRequest | UnsetType = UNSET


class MessageToDns(Variants, frozen=True, kw_only=True):
    """One frame to a DNS server."""

    txt_record_response: TxtRecordResponse | UnsetType = UNSET
