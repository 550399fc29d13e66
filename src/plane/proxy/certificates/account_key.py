"""The key of the ACME account. It is stored beside the certificate, so that a restart does not open a new account.

CAs limit the number of accounts per address.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plane.protocol.errors import ConfigurationError
from plane.proxy.certificates.secret_files import write_secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = ["AccountKey", "account_key_path"]


def account_key_path(cert_path: Path) -> Path:
    """Return the path of the key for a certificate at ``cert_path``."""
    return cert_path.with_name(f"{cert_path.name}.account-key.pem")


class AccountKey:
    """The key, read from ``path`` or made. None: in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._key: EllipticCurvePrivateKey | None = None

    def load(self) -> EllipticCurvePrivateKey:
        """Return the key. The first call makes and stores it if there is no file.

        Raises:
            ConfigurationError: the file does not hold an elliptic curve key.
            OSError: the file cannot be read or written.
        """
        if self._key is None:
            self._key = self._read() or self._make()
        return self._key

    def _read(self) -> EllipticCurvePrivateKey | None:
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
                f"{self._path} holds no elliptic curve key in PEM; move it away to have a new ACME account made"
            )
        return found

    def _make(self) -> EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        if self._path is not None:
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_secret(self._path, pem)
        return key
