"""Checks that the certificate options of a proxy fit together, for `plane proxy` and `plane run-config`."""

from __future__ import annotations

from pathlib import Path

from plane.protocol.errors import ConfigurationError

__all__ = ["check_certificate_options"]


def check_certificate_options(
    https: bool, cert_path: Path | None, tls_cert: Path | None, tls_key: Path | None, *, has_acme: bool
) -> None:
    """Check the options.

    Raises:
        ConfigurationError: names the options.
    """
    if (tls_cert is None) != (tls_key is None):
        raise ConfigurationError("--tls-cert and --tls-key go together")
    if cert_path is not None and tls_cert is not None:
        raise ConfigurationError("give --cert-path, or --tls-cert and --tls-key, not both")
    if has_acme and tls_cert is not None:
        raise ConfigurationError(
            "an ordered certificate is stored in --cert-path; --tls-cert cannot be used with --acme-endpoint"
        )
    has_one = cert_path is not None or tls_cert is not None or has_acme
    if https and not has_one:
        raise ConfigurationError(
            "--https needs a certificate: --cert-path, or --tls-cert and --tls-key, or --acme-endpoint to order one"
        )
    if has_one and not https:
        raise ConfigurationError("a certificate needs --https")
