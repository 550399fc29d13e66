"""Parses the ``--acme-…`` options of `plane proxy` into settings."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from urllib.parse import urlsplit

from plane.cli.arguments import ip_address
from plane.protocol.errors import ConfigurationError
from plane.settings import AcmeSettings

__all__ = ["acme_settings"]

DNS_PORT = 53


def acme_settings(
    endpoint: str | None,
    email: str | None,
    eab_kid: str | None,
    eab_hmac_key: str | None,
    ca_file: Path | None,
    name_server: str | None,
) -> AcmeSettings | None:
    """Return the settings, or None without an endpoint.

    Raises:
        ConfigurationError: an option is missing or malformed.
    """
    if endpoint is None:
        if any(value is not None for value in (email, eab_kid, eab_hmac_key, ca_file, name_server)):
            raise ConfigurationError("--acme-… options need --acme-endpoint, the URL of the CA's directory")
        return None
    if urlsplit(endpoint).scheme != "https" or not urlsplit(endpoint).hostname:
        raise ConfigurationError(f"--acme-endpoint: {endpoint!r} is not an https:// URL of a CA's directory")
    if email is None or "@" not in email:
        raise ConfigurationError("--acme-endpoint needs --acme-email, an address of contact for the CA")
    if (eab_kid is None) != (eab_hmac_key is None):
        raise ConfigurationError("--acme-eab-kid and --acme-eab-hmac-key go together")
    eab = None
    if eab_kid is not None and eab_hmac_key is not None:
        eab = (eab_kid, _base64url(eab_hmac_key))
    if ca_file is not None and not ca_file.is_file():
        raise ConfigurationError(f"--acme-ca: {ca_file} does not exist")
    server = None if name_server is None else _name_server(name_server)
    return AcmeSettings(endpoint=endpoint, email=email, eab=eab, ca_file=ca_file, name_server=server)


def _base64url(text: str) -> bytes:
    try:
        # CAs print it with and without padding.
        key = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ConfigurationError("--acme-eab-hmac-key is not base64url")
    return key


def _name_server(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host.strip("[]") and not host.startswith("[")):
        host, port = text, str(DNS_PORT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise ConfigurationError(f"--acme-name-server: {text!r} is not of the form ADDRESS or ADDRESS:PORT")
    return ip_address(host.strip("[]"), "--acme-name-server"), int(port)
