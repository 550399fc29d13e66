"""Keeps the cluster's certificate: orders one when there is none or it is about to end. Page 5, "Certificates".

When is decided in `plane.decisions.certificates.order_schedule`. One proxy of a cluster orders at a time: the
controller gives the lease, and it is given back in every case (A24). The file of ``--cert-path`` may be shared by
several proxies.
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
from plane.proxy.certificates.renewal_info import ask_renewal_info
from plane.proxy.certificates.secret_files import write_private
from plane.proxy.certificates.tls import Certificate, CertificateHolder, InvalidCertificate
from plane.settings import AcmeSettings
from plane.timing import CERTIFICATE_POLL_INTERVAL_S, CONTROLLER_RESPONSE_TIMEOUT_S

__all__ = ["CertKeeper"]

log = structlog.get_logger("plane.proxy")


class CertKeeper:
    """Keeps one certificate in ``holder``.

    Args:
        send: tells the controller, and whether that could be sent.
        files: where the certificate is kept, if anywhere.
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
        self._owes_release = False
        self._answer: asyncio.Future[CertManagerResponse] | None = None
        # One throw of the dice per certificate: when within the CA's window it is renewed.
        self._chance: tuple[bytes, float] = (b"", 0.0)
        self._window: tuple[datetime.datetime, datetime.datetime] | None = None
        self._ask_window_at = 0.0

    def connected(self) -> None:
        """There is a connection to a controller."""
        self._connected.set()

    def disconnected(self) -> None:
        """There is none: an order does not begin before there is one."""
        self._connected.clear()

    def answered(self, response: CertManagerResponse) -> None:
        """The controller has answered."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(response)

    async def run(self) -> None:
        """Order and renew, until cancelled."""
        while True:
            await asyncio.sleep(await self._look())

    async def _look(self) -> float:
        """Order if it is time to; returns the seconds until the next look, never many: clocks of machines jump."""
        certificate = self._holder.current
        if certificate is not None:
            due_s = await self._due_in_s(certificate)
            if due_s > 0:
                return min(due_s, CERTIFICATE_POLL_INTERVAL_S)
        wait_s = self._schedule.wait_s(self._clock())
        if wait_s == 0:
            await self._try()
            wait_s = self._schedule.wait_s(self._clock())
        return min(wait_s, CERTIFICATE_POLL_INTERVAL_S)

    async def _due_in_s(self, certificate: Certificate) -> float:
        if self._chance[0] != certificate.chain:
            self._chance = (certificate.chain, random.random())  # noqa: S311 - spreads load, guards nothing
            self._window, self._ask_window_at = None, 0.0
        if self._clock() >= self._ask_window_at:
            info = await ask_renewal_info(self._settings.endpoint, certificate.chain, self._context)
            self._window, self._ask_window_at = info.window, self._clock() + info.ask_again_s
        validity = Validity(certificate.not_before, certificate.not_after)
        due = renewal_time(validity, self._window, self._chance[1])
        return (due - datetime.datetime.now(datetime.UTC)).total_seconds()

    async def _try(self) -> None:
        """Take the lease, order, give the lease back. Whatever goes wrong, the next try waits."""
        await self._connected.wait()
        if self._owes_release:
            await self._release()
        try:
            if not await self._leased():
                log.info("another proxy orders the certificate", cluster=self._host)
                self._schedule.refused(self._clock())
                return
            try:
                if not await self._found_in_file():
                    await self._order()
            finally:
                await asyncio.shield(self._release())
        except OrderFailed as error:
            self._failed(error)
        except (PlaneError, OSError) as error:
            self._failed(OrderFailed(str(error) or type(error).__name__))
        except Exception as error:
            # A defect, of the library's or of ours, must not become an order a second.
            log.exception("order for a certificate failed")
            self._failed(OrderFailed(str(error) or type(error).__name__))
        else:
            self._schedule.succeeded(self._clock())

    async def _release(self) -> None:
        """Give the lease back; without a connection, before the next is asked for."""
        self._owes_release = not await self._send("ReleaseCertLease")

    def _failed(self, error: OrderFailed) -> None:
        wait_s = self._schedule.failed(self._clock(), error.retry_after_s)
        log.warning("no certificate", names=self._names, reason=str(error), next_try_s=round(wait_s))

    async def _order(self) -> None:
        certificate = await self._orders.order(self._names, self._set_txt)
        if self._cert_path is not None:
            content = codec.encode(JsonCertificate(certificate.chain.decode(), certificate.key.decode()))
            try:
                await asyncio.to_thread(write_private, self._cert_path, content)
            except OSError as error:
                # It is served all the same; after a restart there is none.
                log.error("certificate not stored", path=str(self._cert_path), error=str(error))
        self._holder.replace(certificate)

    async def _leased(self) -> bool:
        answer = await self._ask("CertLeaseRequest")
        if not isinstance(answer.content, CertLeaseResponse):
            raise OrderFailed("the controller answered something else")
        return answer.content.accepted

    async def _found_in_file(self) -> bool:
        """Whether another proxy, which had the lease before, has put a new certificate into the file that both have."""
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
        answer = await self._ask(SetTxtRecordRequest(set_txt_record=SetTxtRecord(value)))
        if not (isinstance(answer.content, SetTxtRecordResponse) and answer.content.accepted):
            raise OrderFailed("the controller does not set the challenge's value: the lease is another's by now")
        await until_visible(self._host, value, self._settings.name_server)

    async def _ask(self, request: CertManagerRequest) -> CertManagerResponse:
        """Ask the controller.

        Raises:
            OrderFailed: no connection, or no answer in time.
        """
        answer: asyncio.Future[CertManagerResponse] = asyncio.get_running_loop().create_future()
        self._answer = answer
        try:
            async with asyncio.timeout(CONTROLLER_RESPONSE_TIMEOUT_S):
                await self._send(request)
                return await answer
        except TimeoutError:
            raise OrderFailed("no controller answers") from None
        finally:
            self._answer = None
