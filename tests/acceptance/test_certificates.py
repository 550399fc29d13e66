"""A wildcard certificate without thinking: proxies, a controller, our DNS server, and Pebble as the CA."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509

from harness.clusters import free_port, until
from harness.commands import run
from harness.pebble import EAB_KEY, EAB_KEY_ID, Pebble, pebble
from harness.program import Program, program

CLUSTER = "plane.test"
# An order of two names, validated slowly, on a slow machine, after one failure.
LIMIT_S = 90.0


@dataclass
class Place:
    """A controller and a DNS server, and what proxies need to order certificates."""

    folder: Path
    stack: ExitStack
    db: str
    control_port: int = field(default_factory=free_port)
    dns_port: int = field(default_factory=free_port)
    ca: Pebble | None = None
    starts: int = 0
    start_controller: Program = field(init=False)

    def controller(self) -> None:
        started = self.stack.enter_context(
            program(["controller", "--db", self.db, "--port", str(self.control_port)], self.folder, "controller")
        )
        started.says("controller listening", times=self.starts + 1)
        self.starts += 1
        self.start_controller = started

    def proxy(self, name: str, *options: str, cert_path: Path | None = None) -> EntryPoint:
        assert self.ca is not None
        entrance = EntryPoint(free_port(), free_port(), cert_path or self.folder / f"{name}.json")
        arguments = [
            *("proxy", "--controller-url", self.url, "--cluster", CLUSTER, "--name", f"px-{name}"),
            *("--host", "127.0.0.1", "--https", "--http-port", str(entrance.http), "--https-port", str(entrance.https)),
            *("--cert-path", str(entrance.cert_path), "--acme-email", "admin@plane.test"),
            *("--acme-endpoint", self.ca.endpoint, "--acme-name-server", f"127.0.0.1:{self.dns_port}"),
        ]
        if "--acme-ca" not in options:
            arguments += ["--acme-ca", str(self.ca.ca_file)]
        options = tuple(option for option in options if option != "--acme-ca")
        entrance.program = self.stack.enter_context(program([*arguments, *options], self.folder, name))
        return entrance

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"


@dataclass
class EntryPoint:
    """A proxy's ports and its certificate's file."""

    http: int
    https: int
    cert_path: Path
    program: Program | None = None

    def handshake(self) -> x509.Certificate | None:
        """The certificate that a browser is shown; None while nobody listens. A handshake that fails raises."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            plain = socket.create_connection(("127.0.0.1", self.https), timeout=10)
        except ConnectionRefusedError:
            return None
        with context.wrap_socket(plain, server_hostname=f"room.{CLUSTER}") as secured:
            found = secured.getpeercert(binary_form=True)
        assert found is not None
        return x509.load_der_x509_certificate(found)

    def ready(self) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/ready", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def until_serving(self) -> None:
        until(lambda: self.handshake() is not None, LIMIT_S)

    def until_ready(self) -> None:
        until(lambda: self.ready()[0] == 200, LIMIT_S)

    def says(self, text: str) -> None:
        assert self.program is not None
        self.program.says(text, limit_s=LIMIT_S)

    def log(self) -> str:
        assert self.program is not None
        return self.program.log.read_text()


@contextmanager
def place(folder: Path, db: str, **ca: int | bool) -> Iterator[Place]:
    with ExitStack() as stack:
        made = Place(folder, stack, db)
        made.controller()
        # Without a zone, which only a file can ask for: Pebble looks for the challenge's own name here.
        file = folder / "dns.json"
        file.write_text(json.dumps({"Dns": {"controller_url": made.url, "port": made.dns_port, "zone": None}}))
        stack.enter_context(program(["run-config", str(file)], folder, "dns")).says("connected to controller")
        made.ca = stack.enter_context(pebble(folder, made.dns_port, **ca))  # type: ignore[arg-type]
        yield made


def names_of(certificate: x509.Certificate) -> list[str]:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )


def test_two_proxies_at_once_order_once_and_both_serve(tmp_path: Path, postgres_url: str) -> None:
    with place(tmp_path, postgres_url) as it:
        assert it.ca is not None
        shared = tmp_path / "shared.json"
        both = [it.proxy(name, cert_path=shared) for name in ("one", "two")]
        until(lambda: all(each.ready()[0] for each in both))
        for each in both:
            each.until_serving()
            certificate = each.handshake()
            assert certificate is not None
            assert sorted(names_of(certificate)) == [f"*.{CLUSTER}", CLUSTER]
            each.until_ready()
        # The lease was given back: another may have it at once.
        assert run("admin", "put-dummy-dns", "--cluster", CLUSTER, "--controller", it.url).status == 0
        assert it.ca.certificates() == 1
        assert "".join(each.log() for each in both).count("certificate ordered") == 1
        stored = json.loads(shared.read_text())
        assert stat.S_IMODE(shared.stat().st_mode) == 0o600
        for private in (stored["key"].splitlines()[1], (tmp_path / "shared.json.account-key.pem").read_text()[40:80]):
            assert all(private not in each.log() for each in both)
        # A restart finds the certificate, and the account.
        assert both[0].program is not None
        both[0].program.stop()
        again = it.proxy("one-again", cert_path=shared)
        again.until_serving()
        assert it.ca.certificates() == 1


def test_before_there_is_one_the_port_is_closed_and_ready_says_why(tmp_path: Path, postgres_url: str) -> None:
    with place(tmp_path, postgres_url, validation_s=3) as it:
        proxy = it.proxy("slow")
        proxy.says("certificate ordered")
        assert proxy.handshake() is None
        until(lambda: proxy.ready() == (503, "no certificate yet\n"))
        proxy.until_serving()
        until(lambda: proxy.ready()[0] == 200)


def test_a_ca_that_wants_an_account_of_its_own(tmp_path: Path, postgres_url: str) -> None:
    with place(tmp_path, postgres_url, eab=True) as it:
        refused = it.proxy("stranger")
        refused.says("certificate order failed")
        assert "externalAccountRequired" in refused.log()
        known = it.proxy("known", "--acme-eab-kid", EAB_KEY_ID, "--acme-eab-hmac-key", EAB_KEY)
        known.until_serving()
        assert EAB_KEY not in known.log()


def test_an_untrusted_ca_is_asked_seldom_and_the_lease_is_given_back(tmp_path: Path, postgres_url: str) -> None:
    with place(tmp_path, postgres_url) as it:
        assert it.ca is not None
        proxy = it.proxy("suspicious", "--acme-ca")
        proxy.says("certificate order failed")
        time.sleep(3)
        assert proxy.log().count("certificate order failed") == 1
        assert "cannot be reached" in proxy.log()
        assert "its certificate is not accepted: " in proxy.log()
        assert it.ca.certificates() == 0
        # The lease was given back in spite of the failure, and SSL_CERT_FILE is another way to trust the CA.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(it.ca.ca_file))
            trusting = it.proxy("trusting", "--acme-ca")
        trusting.until_serving()


def test_a_controller_killed_in_the_middle_of_an_order_delays_it_only(tmp_path: Path, postgres_url: str) -> None:
    with place(tmp_path, postgres_url, validation_s=2) as it:
        proxy = it.proxy("patient")
        proxy.says("certificate ordered")
        it.start_controller.stop(signal.SIGKILL)
        proxy.says("controller not reached")
        it.controller()
        proxy.until_serving()


def test_a_certificate_about_to_end_is_replaced_without_a_failed_handshake(tmp_path: Path, postgres_url: str) -> None:
    with place(tmp_path, postgres_url, validity_s=60) as it:
        proxy = it.proxy("renewing")
        proxy.until_serving()
        first = proxy.handshake()
        assert first is not None
        serials = {first.serial_number}
        end = time.monotonic() + LIMIT_S
        while len(serials) < 2:
            assert time.monotonic() < end
            shown = proxy.handshake()
            assert shown is not None
            serials.add(shown.serial_number)
            time.sleep(0.1)
