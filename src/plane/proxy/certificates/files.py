"""Reads the certificate's files, refuses a key that others may read, and notices when the files change.

Two forms: that of ``--cert-path``, JSON ``{"cert": PEM chain, "key": PEM}`` (page 5), and the two PEM files of
``--tls-cert`` and ``--tls-key``.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from plane.protocol.errors import ConfigurationError
from plane.proxy.certificates.tls import Certificate, CertificateHolder, InvalidCertificate, read_certificate

__all__ = ["CertificateFiles", "JsonCertificate"]

# A stat of one or two files; a certificate changes every few weeks, and whoever changed it is looking.
LOOK_INTERVAL_S = 1.0

log = structlog.get_logger("plane.proxy")

Version = tuple[tuple[int, int, int], ...]


class JsonCertificate(msgspec.Struct, frozen=True):
    """What is in the file of ``--cert-path``."""

    cert: str
    key: str


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the certificate is: in one JSON file, or in two of PEM.

    Attributes:
        json: the file of ``--cert-path``.
        pair: the files of ``--tls-cert`` and ``--tls-key``.
    """

    json: Path | None = None
    pair: tuple[Path, Path] | None = None

    def read(self) -> Certificate:
        """Read and check.

        Raises:
            InvalidCertificate: says which file, and what to do.
            FileNotFoundError: there is none yet.
        """
        if self.pair is not None:
            chain, key = self.pair
            # Group: as Debian's "ssl-cert" and mounted secrets have it.
            _require_private(key, 0o037)
            return read_certificate(_bytes(chain), _bytes(key))
        assert self.json is not None
        _require_private(self.json, 0o077)
        try:
            text = msgspec.json.decode(_bytes(self.json), type=JsonCertificate)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InvalidCertificate(f'{self.json} is not JSON with "cert" and "key", both PEM') from None
        return read_certificate(text.cert.encode(), text.key.encode())

    def load(self, holder: CertificateHolder, *, required: bool) -> None:
        """Read at the start.

        Raises:
            ConfigurationError: it cannot be used, or there is none although it is ``required``.
        """
        try:
            holder.replace(self.read())
        except FileNotFoundError as error:
            if required:
                raise ConfigurationError(f"there is no certificate: {error.filename} does not exist") from None
        except InvalidCertificate as error:
            raise ConfigurationError(str(error)) from None

    async def watch(self, holder: CertificateHolder) -> None:
        """Put there what changes, until cancelled. What cannot be used is logged, and the old one stays."""
        seen = await asyncio.to_thread(self._version)
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            version = await asyncio.to_thread(self._version)
            if version == seen:
                continue
            seen = version
            try:
                holder.replace(await asyncio.to_thread(self.read))
            except (InvalidCertificate, OSError) as error:
                # Or half written: the next change is looked at again.
                log.warning("certificate not replaced; the one in use stays", reason=str(error))

    def _version(self) -> Version:
        """Changes whenever a file does."""
        found = []
        for path in (self.json,) if self.json is not None else self.pair or ():
            try:
                info = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((info.st_ino, info.st_mtime_ns, info.st_size))
        return tuple(found)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What cannot be read is no certificate, but for a file that is not there."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidCertificate(f"{path} cannot be read: {error.strerror}") from None


def _bytes(path: Path) -> bytes:
    with _reading(path):
        return path.read_bytes()


def _require_private(path: Path, forbidden: int) -> None:
    with _reading(path):
        mode = stat.S_IMODE(path.stat().st_mode)
    if mode & forbidden:
        raise InvalidCertificate(
            f"{path} holds a private key, and its mode {mode:04o} lets others read or write it; run: chmod 600 {path}"
        )
