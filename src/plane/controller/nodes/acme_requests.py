"""Answers what a proxy asks about its cluster's certificate; called by `nodes.proxy`.

Rule: page 3, "Proxy socket".
"""

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

__all__ = ["answer_certificate_request"]

# Of the column; a challenge's value has 43 characters.
TXT_VALUE_LIMIT = 255

log = structlog.get_logger("plane.controller")


async def answer_certificate_request(
    db: Database, cluster: str, node_id: int, request: CertManagerRequest
) -> CertManagerResponse | None:
    """The answer to the request of proxy ``node_id`` of ``cluster``; None for a release, which gets none."""
    match request:
        case "CertLeaseRequest":
            accepted = await acme.take_lease(db, cluster, node_id)
            log.info("certificate lease asked for", cluster=cluster, node=node_id, given=accepted)
            return CertManagerResponse(cert_lease_response=CertLeaseResponse(accepted))
        case "ReleaseCertLease":
            await acme.release_lease(db, cluster, node_id)
            return None
        case SetTxtRecordRequest():
            value = request.content.txt_value
            accepted = len(value) <= TXT_VALUE_LIMIT and await acme.set_txt_value(db, cluster, node_id, value)
            return CertManagerResponse(set_txt_record_response=SetTxtRecordResponse(accepted))
