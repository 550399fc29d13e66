"""Checks which options of a proxy's certificate go together, for `plane proxy` and `plane run-config`."""

from __future__ import annotations

from pathlib import Path

from plane.protocol.errors import ConfigurationError

__all__ = ["check_certificate_options"]


def check_certificate_options(
    https: bool, cert_path: Path | None, tls_cert: Path | None, tls_key: Path | None, *, has_acme: bool
) -> None:
    """Return if they do.

    Raises:
        ConfigurationError: names the options.
    """
    if (tls_cert is None) != (tls_key is None):
        raise ConfigurationError("--tls-cert and --tls-key go together")
    if cert_path is not None and tls_cert is not None:
        raise ConfigurationError("give --cert-path, or --tls-cert and --tls-key, not both")
    if has_acme and tls_cert is not None:
        raise ConfigurationError("a certificate that is ordered is kept in --cert-path, not in --tls-cert")
    has_one = cert_path is not None or tls_cert is not None or has_acme
    if https and not has_one:
        raise ConfigurationError(
            "--https needs a certificate: --cert-path, or --tls-cert and --tls-key, or --acme-endpoint to order one"
        )
    if has_one and not https:
        raise ConfigurationError("a certificate is of use with --https only")
