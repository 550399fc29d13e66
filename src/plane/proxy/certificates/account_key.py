"""The key of the ACME account: made once, and kept beside the certificate, so that a restart is no new account.

CAs limit how many accounts an address may open.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plane.protocol.errors import ConfigurationError
from plane.proxy.certificates.secret_files import write_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = ["AccountKey", "account_key_path"]


def account_key_path(cert_path: Path) -> Path:
    """Where the key is, for a certificate at ``cert_path``."""
    return cert_path.with_name(f"{cert_path.name}.account-key.pem")


class AccountKey:
    """The key, from its file if there is one. ``path`` None: in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._key: EllipticCurvePrivateKey | None = None

    def load(self) -> EllipticCurvePrivateKey:
        """The key; made and stored at the first call if it is not there.

        Raises:
            ConfigurationError: the file is there and holds no such key.
            OSError: it cannot be read or stored.
        """
        if self._key is None:
            self._key = self._stored() or self._made()
        return self._key

    def _stored(self) -> EllipticCurvePrivateKey | None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

        if self._path is None:
            return None
        try:
            found = serialization.load_pem_private_key(self._path.read_bytes(), password=None)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            found = None
        if not isinstance(found, EllipticCurvePrivateKey):
            raise ConfigurationError(
                f"{self._path} holds no elliptic curve key in PEM; move it away, and a new ACME account is made"
            )
        return found

    def _made(self) -> EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        if self._path is not None:
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_private(self._path, pem)
        return key
