"""Says why an HTTP request failed, for all programs that send some to other machines."""

from __future__ import annotations

import os
import ssl

import aiohttp

from plane.os_errors import error_reason

__all__ = ["request_error_reason"]

# OpenSSL's reasons for a response that is not TLS; which of them depends on its version.
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")


def request_error_reason(error: BaseException) -> str:
    """Return why a request failed, without the address and the settings that aiohttp's text repeats."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    match cause:
        # Errors of TLS have the number 1, which is EPERM's.
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted: {cause.verify_message.rstrip('.')}"
        case ssl.SSLError():
            text = (cause.reason or str(cause)).replace("_", " ").lower()
            return f"no TLS connection: {text}" + (
                "; the port may serve plain HTTP" if cause.reason in _NOT_TLS else ""
            )
        case aiohttp.ClientResponseError():
            return f"HTTP status {cause.status}"
        # Lookups of names have negative numbers. Of others, asyncio's text repeats the address.
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number).lower()
        case TimeoutError():
            return "no response in time"
        case _:
            return error_reason(cause)
