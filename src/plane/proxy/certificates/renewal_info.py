"""Requests the renewal window of a certificate from its CA (ARI, RFC 9773). `renewer` repeats it."""

from __future__ import annotations

import base64
import datetime
import ssl
from dataclasses import dataclass

import aiohttp
import msgspec
import structlog

from plane.timing import ACME_STEP_TIMEOUT_S, RENEWAL_INFO_INTERVAL_S, RENEWAL_INFO_MIN_INTERVAL_S
from plane.transport.request_errors import request_error_reason

__all__ = ["RenewalInfo", "certificate_id", "fetch_renewal_info"]

log = structlog.get_logger("plane.proxy")


class _Directory(msgspec.Struct, frozen=True, rename="camel"):
    renewal_info: str | None = None


class _Window(msgspec.Struct, frozen=True):
    start: datetime.datetime
    end: datetime.datetime


class _Response(msgspec.Struct, frozen=True, rename="camel"):
    suggested_window: _Window


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """Begin and end of the ``window`` that the CA suggests, or None. Valid for ``valid_s`` seconds."""

    window: tuple[datetime.datetime, datetime.datetime] | None
    valid_s: float


def certificate_id(chain: bytes) -> str | None:
    """Return the CA's id of a certificate (RFC 9773, section 4.1), or None without an authority key identifier."""
    from cryptography import x509

    leaf = x509.load_pem_x509_certificates(chain)[0]
    try:
        issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return None
    if issuer is None:
        return None
    # The DER of a positive integer: a leading zero where the highest bit is set.
    serial = leaf.serial_number.to_bytes(leaf.serial_number.bit_length() // 8 + 1)
    return f"{_base64url(issuer)}.{_base64url(serial)}"


async def fetch_renewal_info(endpoint: str, chain: bytes, context: ssl.SSLContext) -> RenewalInfo:
    """Return what the CA of ``endpoint`` suggests. No suggestion if it cannot be reached."""
    no_suggestion = RenewalInfo(None, RENEWAL_INFO_INTERVAL_S)
    name = certificate_id(chain)
    if name is None:
        return no_suggestion
    timeout = aiohttp.ClientTimeout(total=ACME_STEP_TIMEOUT_S)
    try:
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            async with http.get(endpoint) as response:
                directory = msgspec.json.decode(await response.read(), type=_Directory)
            if directory.renewal_info is None:
                return no_suggestion
            async with http.get(f"{directory.renewal_info.rstrip('/')}/{name}") as response:
                response.raise_for_status()
                window = msgspec.json.decode(await response.read(), type=_Response).suggested_window
                return RenewalInfo((window.start, window.end), _valid_s(response.headers.get("Retry-After")))
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError) as error:
        log.info("no renewal window from the CA", error=request_error_reason(error))
        return no_suggestion


def _valid_s(retry_after: str | None) -> float:
    """Return the interval that the CA requests, within bounds (RFC 9773, section 4.3.2)."""
    if retry_after is None or not retry_after.isdigit():
        return RENEWAL_INFO_INTERVAL_S
    return min(max(float(retry_after), RENEWAL_INFO_MIN_INTERVAL_S), RENEWAL_INFO_INTERVAL_S * 4)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
