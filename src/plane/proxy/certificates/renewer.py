"""Orders and renews the cluster's certificate (docs/reference/protocol/proxy.md, "Certificates").

`plane.decisions.certificates.order_schedule` decides when. One proxy of a cluster orders at a time: the controller
grants the lease, which is released in every case. Several proxies may share the file of ``--cert-path``.
"""

from __future__ import annotations

import asyncio
import datetime
import random
from collections.abc import Awaitable, Callable

import structlog

from plane.decisions.certificates.order_schedule import OrderSchedule, Validity, renewal_time
from plane.protocol import codec
from plane.protocol.errors import PlaneError
from plane.protocol.names import cluster_host
from plane.protocol.proxy_messages import (
    CertLeaseResponse,
    CertManagerRequest,
    CertManagerResponse,
    SetTxtRecord,
    SetTxtRecordRequest,
    SetTxtRecordResponse,
)
from plane.proxy.certificates.account_key import AccountKey, account_key_path
from plane.proxy.certificates.acme_orders import AcmeOrders, OrderFailed, trusted_by
from plane.proxy.certificates.dns_propagation import until_visible
from plane.proxy.certificates.files import CertificateFiles, JsonCertificate
from plane.proxy.certificates.renewal_info import fetch_renewal_info
from plane.proxy.certificates.secret_files import write_secret
from plane.proxy.certificates.tls import Certificate, CertificateHolder, InvalidCertificate
from plane.settings import AcmeSettings
from plane.timing import CERTIFICATE_POLL_INTERVAL_S, CONTROLLER_RESPONSE_TIMEOUT_S

__all__ = ["CertificateRenewer"]

log = structlog.get_logger("plane.proxy")


class CertificateRenewer:
    """Keeps a valid certificate in ``holder``.

    Args:
        send: sends a request to the controller; returns False without a connection.
        files: where the certificate is stored; None: nowhere.
    """

    def __init__(
        self,
        settings: AcmeSettings,
        cluster: str,
        holder: CertificateHolder,
        files: CertificateFiles | None,
        send: Callable[[CertManagerRequest], Awaitable[bool]],
    ) -> None:
        self._settings = settings
        self._host = cluster_host(cluster)
        self._names = (self._host, f"*.{self._host}")
        self._holder = holder
        self._files = files
        self._send = send
        self._clock = asyncio.get_running_loop().time
        self._schedule = OrderSchedule()
        self._context = trusted_by(settings)
        self._cert_path = None if files is None else files.json
        key = AccountKey(None if self._cert_path is None else account_key_path(self._cert_path))
        self._orders = AcmeOrders(settings, self._context, key)
        self._connected = asyncio.Event()
        self._release_pending = False
        self._response: asyncio.Future[CertManagerResponse] | None = None
        # One random number per certificate: the place of its renewal within the CA's window.
        self._position: tuple[bytes, float] = (b"", 0.0)
        self._window: tuple[datetime.datetime, datetime.datetime] | None = None
        self._window_expires_at = 0.0

    def connected(self) -> None:
        """A connection to a controller was made."""
        self._connected.set()

    def disconnected(self) -> None:
        """The connection ended. No order begins before the next one."""
        self._connected.clear()

    def receive(self, response: CertManagerResponse) -> None:
        """Handle a response of the controller."""
        if self._response is not None and not self._response.done():
            self._response.set_result(response)

    async def run(self) -> None:
        """Order and renew, until cancelled."""
        while True:
            await asyncio.sleep(await self._check())

    async def _check(self) -> float:
        """Order if an order is due. Return the seconds until the next check; few, since a machine's clock can jump."""
        certificate = self._holder.current
        if certificate is not None:
            due_s = await self._due_in_s(certificate)
            if due_s > 0:
                return min(due_s, CERTIFICATE_POLL_INTERVAL_S)
        wait_s = self._schedule.wait_s(self._clock())
        if wait_s == 0:
            await self._attempt()
            wait_s = self._schedule.wait_s(self._clock())
        return min(wait_s, CERTIFICATE_POLL_INTERVAL_S)

    async def _due_in_s(self, certificate: Certificate) -> float:
        if self._position[0] != certificate.chain:
            self._position = (certificate.chain, random.random())  # noqa: S311 - spreads load; not a secret
            self._window, self._window_expires_at = None, 0.0
        if self._clock() >= self._window_expires_at:
            info = await fetch_renewal_info(self._settings.endpoint, certificate.chain, self._context)
            self._window, self._window_expires_at = info.window, self._clock() + info.valid_s
        validity = Validity(certificate.not_before, certificate.not_after)
        due = renewal_time(validity, self._window, self._position[1])
        return (due - datetime.datetime.now(datetime.UTC)).total_seconds()

    async def _attempt(self) -> None:
        """Take the lease, order, release the lease. After any failure the next attempt waits."""
        await self._connected.wait()
        if self._release_pending:
            await self._release()
        try:
            if not await self._acquire_lease():
                log.info("another proxy orders the certificate", cluster=self._host)
                self._schedule.refused(self._clock())
                return
            try:
                if not await self._load_from_file():
                    await self._order()
            finally:
                await asyncio.shield(self._release())
        except OrderFailed as error:
            self._failed(error)
        except (PlaneError, OSError) as error:
            self._failed(OrderFailed(str(error) or type(error).__name__))
        except Exception as error:
            # A defect must not lead to an order every second.
            log.exception("certificate order failed unexpectedly")
            self._failed(OrderFailed(str(error) or type(error).__name__))
        else:
            self._schedule.succeeded(self._clock())

    async def _release(self) -> None:
        """Release the lease. Without a connection it is released before the next request."""
        self._release_pending = not await self._send("ReleaseCertLease")

    def _failed(self, error: OrderFailed) -> None:
        wait_s = self._schedule.failed(self._clock(), error.retry_after_s)
        log.warning("certificate order failed", names=self._names, reason=str(error), next_try_s=round(wait_s))

    async def _order(self) -> None:
        certificate = await self._orders.order(self._names, self._set_txt)
        if self._cert_path is not None:
            content = codec.encode(JsonCertificate(certificate.chain.decode(), certificate.key.decode()))
            try:
                await asyncio.to_thread(write_secret, self._cert_path, content)
            except OSError as error:
                # The certificate is served from memory until the next restart.
                log.error("certificate not stored", path=str(self._cert_path), error=str(error))
        self._holder.replace(certificate)

    async def _acquire_lease(self) -> bool:
        response = await self._request("CertLeaseRequest")
        if not isinstance(response.content, CertLeaseResponse):
            raise OrderFailed("unexpected response from the controller to the lease request")
        return response.content.accepted

    async def _load_from_file(self) -> bool:
        """Load a new certificate that another proxy has stored in the shared file. Return whether there was one."""
        if self._files is None:
            return False
        try:
            found = await asyncio.to_thread(self._files.read)
            if found == self._holder.current or found.not_after <= datetime.datetime.now(datetime.UTC):
                return False
            self._holder.replace(found)
        except (FileNotFoundError, InvalidCertificate):
            return False
        return True

    async def _set_txt(self, value: str) -> None:
        response = await self._request(SetTxtRecordRequest(set_txt_record=SetTxtRecord(value)))
        if not (isinstance(response.content, SetTxtRecordResponse) and response.content.accepted):
            raise OrderFailed("the controller refused to set the challenge's value: another proxy has the lease")
        await until_visible(self._host, value, self._settings.name_server)

    async def _request(self, request: CertManagerRequest) -> CertManagerResponse:
        """Send a request to the controller, and return its response.

        Raises:
            OrderFailed: no connection, or no response in time.
        """
        response: asyncio.Future[CertManagerResponse] = asyncio.get_running_loop().create_future()
        self._response = response
        try:
            async with asyncio.timeout(CONTROLLER_RESPONSE_TIMEOUT_S):
                await self._send(request)
                return await response
        except TimeoutError:
            raise OrderFailed("no response from a controller") from None
        finally:
            self._response = None
