"""Orders at a CA that answers badly at one step: the failure names that step."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from plane.proxy.certificates.account_key import AccountKey
from plane.proxy.certificates.acme_orders import AcmeOrders, OrderFailed, trusted_by
from plane.proxy.certificates.tls import Certificate
from plane.settings import AcmeSettings

NAME = "plane.test"
RESOURCES = ("newAccount", "newNonce", "newOrder", "revokeCert", "keyChange")


class ScriptedCa:
    """A CA that trusts everybody. ``bad``: the path that answers badly, and how: a status and a body."""

    def __init__(self, bad: tuple[str, int, bytes] | None = None) -> None:
        self.base = ""
        self._bad = bad
        self._authority = trustme.CA()
        self._chain = b""
        self._is_answered = False

    async def handle(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/")
        headers = {"Replay-Nonce": "n", "Location": f"{self.base}/{path}"}
        if self._bad is not None and path == self._bad[0]:
            return web.Response(status=self._bad[1], body=self._bad[2], headers={"Replay-Nonce": "n"})
        if path == "finalize":
            self._issue(await request.json())
        answers: dict[str, Any] = {
            "directory": {
                name: f"{self.base}/{name}"
                for name in ("newAccount", "newNonce", "newOrder", "revokeCert", "keyChange")
            },
            "newNonce": {},
            "newAccount": {"status": "valid"},
            "newOrder": self._order("pending"),
            "authorization": self._authorization("valid" if self._is_answered else "pending"),
            "challenge": self._challenge(),
            "finalize": self._order("valid") | {"certificate": f"{self.base}/certificate"},
        }
        if path == "challenge":
            self._is_answered = True
        body = self._chain if path == "certificate" else json.dumps(answers[path]).encode()
        return web.Response(body=body, headers=headers)

    def _order(self, status: str) -> dict[str, Any]:
        return {
            "status": status,
            "identifiers": [{"type": "dns", "value": NAME}],
            "authorizations": [f"{self.base}/authorization"],
            "finalize": f"{self.base}/finalize",
        }

    def _authorization(self, status: str) -> dict[str, Any]:
        return {
            "status": status,
            "identifier": {"type": "dns", "value": NAME},
            "challenges": [self._challenge()],
        }

    def _challenge(self) -> dict[str, Any]:
        return {"type": "dns-01", "url": f"{self.base}/challenge", "status": "pending", "token": "t"}

    def _issue(self, signed: dict[str, str]) -> None:
        payload = json.loads(base64.urlsafe_b64decode(signed["payload"] + "=="))
        request = x509.load_der_x509_csr(base64.urlsafe_b64decode(payload["csr"] + "=="))
        self._chain = sign(self._authority, request)


def sign(authority: trustme.CA, request: x509.CertificateSigningRequest) -> bytes:
    """A certificate for the request's key."""
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    builder = x509.CertificateBuilder(issuer.subject, x509.Name([]), request.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    signed = builder.add_extension(names.value, critical=True).sign(key, hashes.SHA256())  # type: ignore[arg-type]
    return signed.public_bytes(serialization.Encoding.PEM)


@asynccontextmanager
async def running(ca: ScriptedCa) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path}", ca.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    ca.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield f"{ca.base}/directory"
    finally:
        await runner.cleanup()


async def ordered(ca: ScriptedCa) -> Certificate:
    async def set_txt(value: str) -> None:
        assert value

    async with running(ca) as endpoint:
        settings = AcmeSettings(endpoint=endpoint, email="admin@plane.test")
        return await AcmeOrders(settings, trusted_by(settings), AccountKey(None)).order((NAME,), set_txt)


async def test_a_ca_that_answers_well_issues_a_certificate() -> None:
    assert (await ordered(ScriptedCa())).names == (NAME,)


STEPS = {
    "directory": "its directory",
    "newAccount": "the account",
    "newOrder": "the order",
    "authorization": "the authorization",
    "challenge": "the response to the challenge",
    "finalize": "the finalization of the order",
    "certificate": "the certificate",
}


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"[]", b'{"status": 5}', b""])
@pytest.mark.parametrize("path", STEPS)
async def test_a_bad_answer_is_named_by_its_step(path: str, body: bytes) -> None:
    with pytest.raises(OrderFailed, match=f"the CA's response to the request for {STEPS[path]} is not as in RFC 8555"):
        await ordered(ScriptedCa((path, 200, body)))


@pytest.mark.parametrize("path", STEPS)
async def test_a_refusal_is_named_by_its_step(path: str) -> None:
    problem = {"type": "urn:ietf:params:acme:error:unauthorized", "detail": "no account for you"}
    ca = ScriptedCa((path, 403, json.dumps(problem).encode()))
    said = "status 403" if path == "directory" else "no account for you (unauthorized)"
    with pytest.raises(OrderFailed, match=f"(refused|request for) {STEPS[path]}") as caught:
        await ordered(ca)
    assert said in str(caught.value)


async def test_a_page_of_an_error_is_quoted_in_part() -> None:
    with pytest.raises(OrderFailed) as caught:
        await ordered(ScriptedCa(("newOrder", 502, b"<html>" + b"x" * 10_000)))
    assert "refused the order: <html>xxx" in str(caught.value)
    assert len(str(caught.value)) < 500


async def test_a_ca_that_is_not_there_is_named() -> None:
    settings = AcmeSettings(endpoint="http://127.0.0.1:1/directory", email="admin@plane.test")
    with pytest.raises(OrderFailed, match=r"cannot be reached for its directory: connection refused$"):
        await AcmeOrders(settings, trusted_by(settings), AccountKey(None)).order((NAME,), lambda value: None)  # type: ignore[arg-type, return-value]
