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
    """``txt_value`` is ``None`` when there is none."""

    cluster: str
    txt_value: str | None = None


class MessageFromDns(Variants, frozen=True, kw_only=True):
    """One frame from a DNS server."""

    txt_record_request: TxtRecordRequest | UnsetType = UNSET


class MessageToDns(Variants, frozen=True, kw_only=True):
    """One frame to a DNS server."""

    txt_record_response: TxtRecordResponse | UnsetType = UNSET
