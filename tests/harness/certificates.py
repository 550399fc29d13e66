"""Certificates of a test's own authority, in the forms that the proxy reads."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import trustme

__all__ = ["Authority"]


class Authority:
    """Issues certificates for ``localhost``, and makes the clients that trust them."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = folder / "authority.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self) -> trustme.LeafCert:
        return self._ca.issue_cert("localhost", "*.localhost", "127.0.0.1")

    def pair(self, leaf: trustme.LeafCert) -> tuple[Path, Path]:
        """Two PEM files; the same two each time."""
        chain, key = self._folder / "chain.pem", self._folder / "key.pem"
        chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key.touch(mode=0o600)
        key.write_bytes(leaf.private_key_pem.bytes())
        return chain, key

    def json(self, leaf: trustme.LeafCert) -> Path:
        """One JSON file; the same one each time."""
        path = self._folder / "certificate.json"
        path.touch(mode=0o600)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems).decode()
        path.write_text(json.dumps({"cert": chain, "key": leaf.private_key_pem.bytes().decode()}))
        return path

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        return context
