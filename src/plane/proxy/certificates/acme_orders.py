"""Orders certificates by ACME (RFC 8555) with DNS-01 challenges. No other file uses the ACME library.

`renewer` starts orders, holds the lease and sets the TXT values; `dns_propagation` waits until they are visible.
"""

from __future__ import annotations

import asyncio
import datetime
import enum
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog

from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError, PlaneError
from plane.proxy.certificates.account_key import AccountKey
from plane.proxy.certificates.tls import Certificate, read_certificate
from plane.settings import AcmeSettings
from plane.timing import ACME_POLL_INTERVAL_S, ACME_STEP_TIMEOUT_S
from plane.transport.request_errors import request_error_reason

if TYPE_CHECKING:
    import aioacme
    from cryptography import x509

__all__ = ["AcmeOrders", "OrderFailed", "trusted_by"]

# Characters of a CA's response that are quoted; it may be a whole page.
QUOTE_LIMIT = 300

log = structlog.get_logger("plane.proxy")


class OrderFailed(PlaneError):
    """No certificate was issued. ``retry_after_s``: the wait that the CA requests, if any."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


def trusted_by(settings: AcmeSettings) -> ssl.SSLContext:
    """Return the trust for connections to the CA: that of the system (or ``SSL_CERT_FILE``), and the private CA if any.

    Raises:
        ConfigurationError
    """
    context = ssl.create_default_context()
    if settings.ca_file is not None:
        try:
            context.load_verify_locations(settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"--acme-ca: {settings.ca_file} cannot be used: {error_reason(error)}") from None
    return context


class _Step(enum.StrEnum):
    """The last request to the CA, as named in the error if it fails."""

    DIRECTORY = "its directory"
    ACCOUNT = "the account"
    CONTACT = "the account's contact"
    ORDER = "the order"
    AUTHORIZATION = "the authorization"
    CHALLENGE = "the response to the challenge"
    VALIDATION = "the validation"
    FINALIZATION = "the finalization of the order"
    CERTIFICATE = "the certificate"


class AcmeOrders:
    """Orders for one account.

    Args:
        settings: the CA and the account.
        context: the trust for the CA (`trusted_by`).
        account_key: the key of the account.
    """

    def __init__(self, settings: AcmeSettings, context: ssl.SSLContext, account_key: AccountKey) -> None:
        self._settings = settings
        self._context = context
        self._account_key = account_key
        self._has_contact = False

    async def order(self, names: tuple[str, ...], set_txt: Callable[[str], Awaitable[None]]) -> Certificate:
        """Return a certificate for ``names``. ``set_txt`` returns when the challenge's value is set and visible.

        Raises:
            OrderFailed: every failure, also an unreachable CA. It names the step.
        """
        try:
            client = self._client()
        except OSError as error:
            raise OrderFailed(f"the account's key cannot be used: {error_reason(error)}") from error
        async with client:
            order = _Order(client, self._settings.email, set_txt, has_contact=self._has_contact)
            try:
                return await order.run(names)
            except OrderFailed:
                raise
            except Exception as error:
                raise self._failure(order.step, error) from error
            finally:
                self._has_contact = order.has_contact

    def _client(self) -> aioacme.Client:
        # Imported here, since it takes 0.8 s that a proxy without ACME need not spend.
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

    def _failure(self, step: _Step, error: Exception) -> OrderFailed:
        """Return the error to report for one that the library raised."""
        import aioacme
        import httpx

        match error:
            case aioacme.RateLimitedError():
                after_s = None if error.retry_after is None else _seconds_until(error.retry_after)
                return OrderFailed(f"the CA's rate limit, at {step}: {_problems(error)}", after_s)
            case aioacme.AcmeError():
                return OrderFailed(f"the CA refused {step}: {_problems(error)}")
            case TimeoutError():
                return OrderFailed(f"the CA took longer than {ACME_STEP_TIMEOUT_S:.0f} s, at {step}")
            case httpx.HTTPStatusError():
                status = error.response.status_code
                return OrderFailed(
                    f"the CA responded with status {status} to the request for {step}; is "
                    f"{self._settings.endpoint} the URL of an ACME directory?"
                )
            case httpx.HTTPError() | httpx.InvalidURL() | OSError():
                reason = request_error_reason(_first_cause(error))
                return OrderFailed(f"the CA at {self._settings.endpoint} cannot be reached for {step}: {reason}")
        # The library has no errors of its own for malformed responses.
        hint = (
            f"; is {self._settings.endpoint} the URL of an ACME directory?"
            if step in (_Step.DIRECTORY, _Step.ACCOUNT)
            else ""
        )
        reason = f"{type(error).__name__}: {error}"[:QUOTE_LIMIT]
        return OrderFailed(f"the CA's response to the request for {step} is not as in RFC 8555 ({reason}){hint}")


class _Order:
    """One order. ``step``: the last request to the CA."""

    def __init__(
        self, client: aioacme.Client, email: str, set_txt: Callable[[str], Awaitable[None]], *, has_contact: bool
    ) -> None:
        self.step = _Step.DIRECTORY
        self.has_contact = has_contact
        self._client = client
        self._email = email
        self._set_txt = set_txt

    async def run(self, names: tuple[str, ...]) -> Certificate:
        import aioacme

        client = self._client
        async with asyncio.timeout(ACME_STEP_TIMEOUT_S):
            await client.get_terms_of_service()
            self.step = _Step.ACCOUNT
            account = await client.get_account()
            if not self.has_contact:
                self.step = _Step.CONTACT
                await client.update_account(contact=[f"mailto:{self._email}"])
                self.has_contact = True
            log.info("certificate ordered", names=names, account=account.uri)
            self.step = _Step.ORDER
            order = await client.new_order([aioacme.Identifier(name) for name in names])
        for uri in order.authorizations:
            await self._authorize(uri)
        key, request = _new_key_and_request(names)
        self.step = _Step.FINALIZATION
        async with asyncio.timeout(ACME_STEP_TIMEOUT_S):
            order = await client.finalize_order(order.finalize, request)
            while order.status is aioacme.OrderStatus.processing or order.status is aioacme.OrderStatus.ready:
                await asyncio.sleep(ACME_POLL_INTERVAL_S)
                order = await client.get_order(order.uri)
            if order.status is not aioacme.OrderStatus.valid or order.certificate is None:
                raise OrderFailed(f"the order is {order.status.value}: {order.error}")
            self.step = _Step.CERTIFICATE
            chain = await client.get_certificate(order.certificate)
        return read_certificate(chain, key)

    async def _authorize(self, uri: str) -> None:
        import aioacme

        client = self._client
        self.step = _Step.AUTHORIZATION
        async with asyncio.timeout(ACME_STEP_TIMEOUT_S):
            authorization = await client.get_authorization(uri)
        if authorization.status is aioacme.AuthorizationStatus.valid:
            return
        challenge = next((c for c in authorization.challenges if c.type is aioacme.ChallengeType.dns01), None)
        if challenge is None:
            raise OrderFailed(f"the CA offers no DNS challenge for {authorization.identifier.value}")
        await self._set_txt(client.get_dns_challenge_validation(challenge.token))
        self.step = _Step.CHALLENGE
        async with asyncio.timeout(ACME_STEP_TIMEOUT_S):
            await client.answer_challenge(challenge.url)
            self.step = _Step.VALIDATION
            authorization = await client.get_authorization(uri)
            while authorization.status is aioacme.AuthorizationStatus.pending:
                await asyncio.sleep(ACME_POLL_INTERVAL_S)
                authorization = await client.get_authorization(uri)
        if authorization.status is not aioacme.AuthorizationStatus.valid:
            details = [challenge.error.detail for challenge in authorization.challenges if challenge.error is not None]
            reason = "; ".join(detail for detail in details if detail) or "the CA gives no reason"
            raise OrderFailed(f"{authorization.identifier.value} could not be validated: {reason}")


def _new_key_and_request(names: tuple[str, ...]) -> tuple[bytes, x509.CertificateSigningRequest]:
    """Return a new private key, PEM, and the signing request for it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    # The names are only in the extension: a common name is limited to 64 characters.
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(alternatives, critical=False)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, request.sign(key, hashes.SHA256())


def _first_cause(error: BaseException) -> BaseException:
    """Return the error that led to ``error``: the text of httpx is "All connection attempts failed" for any cause."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _problems(error: aioacme.AcmeError) -> str:
    parts = [error.error, *(error.error.subproblems or ())]
    return "; ".join(f"{part.detail[:QUOTE_LIMIT]} ({part.type.rpartition(':')[2]})" for part in parts)


def _seconds_until(time: datetime.datetime) -> float:
    return max(0.0, (time - datetime.datetime.now(datetime.UTC)).total_seconds())
