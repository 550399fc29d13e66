"""Pebble, the CA that Let's Encrypt makes for tests, started by hand on loopback with a certificate of our own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from harness import real_parts
from harness.ports import free_port

__all__ = ["EAB_KEY", "EAB_KEY_ID", "Pebble", "pebble", "write_pebble_config"]

START_LIMIT_S = 20.0
EAB_KEY_ID = "kid-1"
EAB_KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


@dataclass(frozen=True)
class Pebble:
    """A running CA. ``ca_file``: what must be trusted to talk to it. ``log``: what it says."""

    endpoint: str
    ca_file: Path
    log: Path

    def certificates(self) -> int:
        """How many it has issued."""
        return self.log.read_text().count("Issued certificate serial")


@contextmanager
def pebble(
    folder: Path,
    dns_port: int,
    *,
    eab: bool = False,
    validity_s: int | None = None,
    validation_s: int | None = None,
) -> Iterator[Pebble]:
    """A CA that refuses every fifth nonce and asks our DNS server. ``validation_s``: it takes its time to validate."""
    program = shutil.which("pebble")
    if program is None:
        real_parts.missing("Pebble (Debian's pebble)")
    assert program is not None
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    port, management_port, http_port, tls_port = (free_port() for _ in range(4))
    config = write_pebble_config(
        folder,
        authority.issue_cert("localhost"),
        "127.0.0.1",
        (port, management_port, http_port, tls_port),
        externalAccountBindingRequired=eab,
        externalAccountMACKeys={EAB_KEY_ID: EAB_KEY} if eab else {},
        **({} if validity_s is None else {"certificateValidityPeriod": validity_s}),
    )
    values = {**os.environ, "PEBBLE_WFE_NONCEREJECT": "20"}
    values |= {"PEBBLE_VA_NOSLEEP": "1"} if validation_s is None else {"PEBBLE_VA_SLEEPTIME": str(validation_s)}
    command = [program, "-config", str(config), "-dnsserver", f"127.0.0.1:{dns_port}", "-strict"]
    log = folder / "pebble.log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=values) as server:
        try:
            _until_accepting(port, server)
            yield Pebble(f"https://localhost:{port}/dir", folder / "ca.pem", log)
        finally:
            server.terminate()


def write_pebble_config(
    folder: Path, certificate: trustme.LeafCert, address: str, ports: tuple[int, int, int, int], **more: object
) -> Path:
    """Write Pebble's configuration, and return its file. ``ports``: ACME, management, HTTP-01, TLS-ALPN-01."""
    certificate.private_key_pem.write_to_path(folder / "pebble-key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "pebble-cert.pem")
    port, management_port, http_port, tls_port = ports
    config = {
        "listenAddress": f"{address}:{port}",
        "managementListenAddress": f"{address}:{management_port}",
        "certificate": str(folder / "pebble-cert.pem"),
        "privateKey": str(folder / "pebble-key.pem"),
        "httpPort": http_port,
        "tlsPort": tls_port,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "externalAccountMACKeys": {},
        **more,
    }
    file = folder / "pebble.json"
    file.write_text(json.dumps({"pebble": config}))
    return file


def _until_accepting(port: int, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert server.poll() is None, "Pebble does not start"
            assert time.monotonic() < end, "Pebble does not listen"
            time.sleep(0.05)
