"""The certificate that browsers are shown, and how it is replaced while connections are open.

`CertificateHolder` is the one place where the current certificate is: `certificates.files` puts there what it reads,
and whoever orders certificates puts there what was issued. The TLS port opens once there is one (`entry_points`). A new
one is shown from the next handshake on; connections that are open keep theirs.
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
# without its CBC suites, which testssl.sh names LUCKY13.
_TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!PSK"

log = structlog.get_logger("plane.proxy")


class InvalidCertificate(PlaneError):
    """It cannot be served; the text says why, and never shows the key."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A chain and its private key, checked to belong together.

    Attributes:
        chain, key: PEM. The key is never in a log or a repr.
        names: the DNS names and addresses that it is for.
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
    # Loaded when it is needed: a proxy without TLS starts sooner.
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
        # The library's text may quote what it read.
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
        self._there_is_one = asyncio.Event()
        # What a listening port is given. It has no certificate of its own: each handshake takes the current one's.
        self.context = _context()
        self.context.sni_callback = self._show_current

    @property
    def current(self) -> Certificate | None:
        """The certificate that new connections are shown."""
        return self._current

    async def available(self) -> None:
        """Return once there is a certificate."""
        await self._there_is_one.wait()

    def replace(self, certificate: Certificate) -> None:
        """Show this one from the next handshake on.

        Raises:
            InvalidCertificate: OpenSSL refuses it, as for a key that is too short; the old one stays.
        """
        if certificate == self._current:
            return
        context = _context()
        try:
            _load(context, certificate)
        except ssl.SSLError as error:
            raise InvalidCertificate(f"OpenSSL refuses the certificate: {error.reason}") from None
        self._current, self._context = certificate, context
        self._there_is_one.set()
        log.info("certificate in use", names=certificate.names, until=certificate.not_after.isoformat())

    def _show_current(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        """OpenSSL's callback during a handshake; it comes for clients that name no server too."""
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
    """OpenSSL reads files only; these are in memory, so that the key is never on a disk where it was not before."""
    with (
        os.fdopen(os.memfd_create("chain"), "wb") as chain,
        os.fdopen(os.memfd_create("key"), "wb") as key,
    ):
        for file, text in ((chain, certificate.chain), (key, certificate.key)):
            file.write(text)
            file.flush()
        context.load_cert_chain(f"/proc/self/fd/{chain.fileno()}", f"/proc/self/fd/{key.fileno()}")
