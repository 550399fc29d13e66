"""Handles a proxy's requests about its cluster's certificate; called by `nodes.proxy`."""

from __future__ import annotations

import structlog

from plane.database import acme
from plane.database.pool import Database
from plane.protocol.proxy_messages import (
    CertLeaseResponse,
    CertManagerRequest,
    CertManagerResponse,
    SetTxtRecordRequest,
    SetTxtRecordResponse,
)

__all__ = ["handle_certificate_request"]

# Of the column; a challenge's value has 43 characters.
MAX_TXT_VALUE_LENGTH = 255

log = structlog.get_logger("plane.controller")


async def handle_certificate_request(
    db: Database, cluster: str, node_id: int, request: CertManagerRequest
) -> CertManagerResponse | None:
    """Return the response to proxy ``node_id`` of ``cluster``; None for a release, which has no response."""
    match request:
        case "CertLeaseRequest":
            accepted = await acme.take_lease(db, cluster, node_id)
            log.info("certificate lease requested", cluster=cluster, node=node_id, granted=accepted)
            return CertManagerResponse(cert_lease_response=CertLeaseResponse(accepted))
        case "ReleaseCertLease":
            await acme.release_lease(db, cluster, node_id)
            return None
        case SetTxtRecordRequest():
            value = request.content.txt_value
            accepted = len(value) <= MAX_TXT_VALUE_LENGTH and await acme.set_txt_value(db, cluster, node_id, value)
            return CertManagerResponse(set_txt_record_response=SetTxtRecordResponse(accepted))
