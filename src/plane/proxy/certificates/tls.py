"""The certificate of new TLS connections, which can be replaced while connections are open.

`CertificateHolder` has the current certificate. `certificates.files` and `renewer` replace it. The TLS port opens once
there is one (`entry_points`). A new certificate applies from the next handshake on; open connections keep theirs.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from plane.protocol.errors import PlaneError

__all__ = ["Certificate", "CertificateHolder", "InvalidCertificate", "read_certificate"]

# TLS 1.2 with forward secrecy and authenticated encryption only; TLS 1.3 has no others. As Mozilla's "intermediate",
# without its CBC suites, which testssl.sh reports as LUCKY13.
_TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!PSK"

log = structlog.get_logger("plane.proxy")


class InvalidCertificate(PlaneError):
    """A certificate that cannot be served. The text gives the reason and never shows the key."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A chain and its private key, which belong together.

    Attributes:
        chain, key: PEM. The key is not in the repr.
        names: its DNS names and addresses.
        not_before, not_after: its begin and end, UTC.
    """

    chain: bytes
    key: bytes = field(repr=False)
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime


def read_certificate(chain: bytes, key: bytes) -> Certificate:
    """Check a chain and its key, both PEM.

    Raises:
        InvalidCertificate
    """
    # Imported here, so that a proxy without TLS starts sooner.
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise InvalidCertificate(f"the certificate is not PEM: {error}") from None
    try:
        private_key = serialization.load_pem_private_key(key, password=None)
    except TypeError:
        raise InvalidCertificate("the private key is encrypted; store it without a pass phrase") from None
    except ValueError:
        # The library's text may quote the key.
        raise InvalidCertificate("the private key is not PEM") from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*form) != private_key.public_key().public_bytes(*form):
        raise InvalidCertificate("the private key does not belong to the first certificate of the chain")
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [*alternatives.get_values_for_type(x509.DNSName)]
        names += [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        names = []
    return Certificate(chain, key, tuple(names), leaf.not_valid_before_utc, leaf.not_valid_after_utc)


class CertificateHolder:
    """The current certificate, none at first."""

    def __init__(self) -> None:
        self._current: Certificate | None = None
        self._context: ssl.SSLContext | None = None
        self._available = asyncio.Event()
        # The context of the listening ports. It has no certificate: each handshake switches to the current one.
        self.context = _context()
        self.context.sni_callback = self._select_certificate

    @property
    def current(self) -> Certificate | None:
        """The certificate of new connections; None: there is none yet."""
        return self._current

    async def available(self) -> None:
        """Return once there is a certificate."""
        await self._available.wait()

    def replace(self, certificate: Certificate) -> None:
        """Use ``certificate`` from the next handshake on.

        Raises:
            InvalidCertificate: OpenSSL refuses it, for example for a key that is too short. The current one stays.
        """
        if certificate == self._current:
            return
        context = _context()
        try:
            _load(context, certificate)
        except ssl.SSLError as error:
            raise InvalidCertificate(f"OpenSSL refuses the certificate: {error.reason}") from None
        self._current, self._context = certificate, context
        self._available.set()
        log.info("certificate in use", names=certificate.names, until=certificate.not_after.isoformat())

    def _select_certificate(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        """Handle OpenSSL's callback in a handshake; it is called for clients without SNI too."""
        assert self._context is not None
        connection.context = self._context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS_1_2_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # See docs/decisions/0007-no-http-2.md.
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Load a certificate. OpenSSL reads only files; these are in memory, so that the key is not written to a disk."""
    with (
        os.fdopen(os.memfd_create("chain"), "wb") as chain,
        os.fdopen(os.memfd_create("key"), "wb") as key,
    ):
        for file, text in ((chain, certificate.chain), (key, certificate.key)):
            file.write(text)
            file.flush()
        context.load_cert_chain(f"/proc/self/fd/{chain.fileno()}", f"/proc/self/fd/{key.fileno()}")
