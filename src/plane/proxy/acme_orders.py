"""Orders certificates by ACME (RFC 8555) with DNS-01 challenges: the one file that knows the library for it.

`cert_keeper` decides when, holds the lease and sets the TXT values; `txt_visibility` waits until they are seen.
"""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog

from plane.protocol.errors import ConfigurationError, PlaneError, why
from plane.proxy.account_key import AccountKey
from plane.proxy.tls import Certificate, read_certificate
from plane.settings import AcmeSettings
from plane.timing import ACME_POLL_INTERVAL_S, ACME_STEP_LIMIT_S

if TYPE_CHECKING:
    import aioacme
    from cryptography import x509

__all__ = ["AcmeOrders", "OrderFailed", "trusted_by"]

log = structlog.get_logger("plane.proxy")


class OrderFailed(PlaneError):
    """No certificate was issued. ``retry_after_s``: how long the CA asks to wait, if it does."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


def trusted_by(settings: AcmeSettings) -> ssl.SSLContext:
    """What is trusted when the CA is talked to: the system (or ``SSL_CERT_FILE``), and the private CA if one is given.

    Raises:
        ConfigurationError
    """
    context = ssl.create_default_context()
    if settings.ca_file is not None:
        try:
            context.load_verify_locations(settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"--acme-ca: {settings.ca_file} cannot be used: {why(error)}") from None
    return context


class AcmeOrders:
    """Orders for one account.

    Args:
        settings: the CA and the account.
        context: what is trusted (`trusted_by`).
        account_key: signs for the account.
    """

    def __init__(self, settings: AcmeSettings, context: ssl.SSLContext, account_key: AccountKey) -> None:
        self._settings = settings
        self._context = context
        self._account_key = account_key
        self._has_contact = False

    async def order(self, names: tuple[str, ...], set_txt: Callable[[str], Awaitable[None]]) -> Certificate:
        """A certificate for ``names``. ``set_txt`` returns when the challenge's value is set and seen.

        Raises:
            OrderFailed: of whatever kind, also if the CA cannot be reached.
        """
        # 0.8 s that a proxy without ACME does not wait for.
        import aioacme
        import httpx

        try:
            async with self._client() as client:
                return await self._order(client, names, set_txt)
        except aioacme.RateLimitedError as error:
            after_s = None if error.retry_after is None else _seconds_until(error.retry_after)
            raise OrderFailed(f"the CA's rate limit: {_said(error)}", after_s) from error
        except aioacme.AcmeError as error:
            raise OrderFailed(f"the CA refused: {_said(error)}") from error
        except TimeoutError as error:
            raise OrderFailed(f"the CA took longer than {ACME_STEP_LIMIT_S:.0f} s over one step") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = str(error) or type(error).__name__
            raise OrderFailed(f"the CA at {self._settings.endpoint} cannot be reached: {reason}") from error
        except (KeyError, ValueError) as error:
            # What the library makes of an answer that is none.
            raise OrderFailed(f"{self._settings.endpoint} is no ACME directory: {type(error).__name__}") from error

    def _client(self) -> aioacme.Client:
        import aioacme

        binding = None
        if self._settings.eab is not None:
            key_id, mac_key = self._settings.eab
            binding = aioacme.ExternalAccountBinding(kid=key_id, mac_key=mac_key)
        return aioacme.Client(
            account_key=self._account_key.load(),
            directory_url=self._settings.endpoint,
            external_account_binding=binding,
            ssl=self._context,
        )

    async def _order(
        self, client: aioacme.Client, names: tuple[str, ...], set_txt: Callable[[str], Awaitable[None]]
    ) -> Certificate:
        import aioacme

        async with asyncio.timeout(ACME_STEP_LIMIT_S):
            account = await client.get_account()
            if not self._has_contact:
                await client.update_account(contact=[f"mailto:{self._settings.email}"])
                self._has_contact = True
            log.info("certificate ordered", names=names, account=account.uri)
            order = await client.new_order([aioacme.Identifier(name) for name in names])
        for uri in order.authorizations:
            await self._authorize(client, uri, set_txt)
        key, request = _new_key_and_request(names)
        async with asyncio.timeout(ACME_STEP_LIMIT_S):
            order = await client.finalize_order(order.finalize, request)
            while order.status is aioacme.OrderStatus.processing or order.status is aioacme.OrderStatus.ready:
                await asyncio.sleep(ACME_POLL_INTERVAL_S)
                order = await client.get_order(order.uri)
            if order.status is not aioacme.OrderStatus.valid or order.certificate is None:
                raise OrderFailed(f"the order is {order.status.value}: {order.error}")
            chain = await client.get_certificate(order.certificate)
        return read_certificate(chain, key)

    async def _authorize(self, client: aioacme.Client, uri: str, set_txt: Callable[[str], Awaitable[None]]) -> None:
        import aioacme

        async with asyncio.timeout(ACME_STEP_LIMIT_S):
            authorization = await client.get_authorization(uri)
        if authorization.status is aioacme.AuthorizationStatus.valid:
            return
        challenge = next((c for c in authorization.challenges if c.type is aioacme.ChallengeType.dns01), None)
        if challenge is None:
            raise OrderFailed(f"the CA offers no DNS challenge for {authorization.identifier.value}")
        await set_txt(client.get_dns_challenge_validation(challenge.token))
        async with asyncio.timeout(ACME_STEP_LIMIT_S):
            await client.answer_challenge(challenge.url)
            authorization = await client.get_authorization(uri)
            while authorization.status is aioacme.AuthorizationStatus.pending:
                await asyncio.sleep(ACME_POLL_INTERVAL_S)
                authorization = await client.get_authorization(uri)
        if authorization.status is not aioacme.AuthorizationStatus.valid:
            errors = [challenge.error.detail for challenge in authorization.challenges if challenge.error is not None]
            why = "; ".join(error for error in errors if error) or "the CA does not say why"
            raise OrderFailed(f"{authorization.identifier.value} could not be validated: {why}")


def _new_key_and_request(names: tuple[str, ...]) -> tuple[bytes, x509.CertificateSigningRequest]:
    """A fresh private key, PEM, and the request for a certificate of it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    # Names stand in the extension alone; a common name may have no more than 64 characters.
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(alternatives, critical=False)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, request.sign(key, hashes.SHA256())


def _said(error: aioacme.AcmeError) -> str:
    parts = [error.error, *(error.error.subproblems or ())]
    return "; ".join(f"{part.detail} ({part.type.rpartition(':')[2]})" for part in parts)


def _seconds_until(time: datetime.datetime) -> float:
    return max(0.0, (time - datetime.datetime.now(datetime.UTC)).total_seconds())
