"""`plane proxy`."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from plane.cli.acme_arguments import acme_settings
from plane.cli.arguments import cluster_name, node_name, trusted_networks
from plane.cli.certificate_options import check_certificate_options
from plane.cli.controller_access import KeyFileOption, controller_access
from plane.decisions.http.limits import DEFAULT_LIMITS, HttpLimits
from plane.decisions.trace_export import traces_are_exported
from plane.protocol.names import Prefix
from plane.settings import ProxyLimits, ProxySettings

if TYPE_CHECKING:
    from plane.cli.serving import Running

__all__ = ["proxy", "proxy_component"]

_PORT = validators.Number(gte=0, lte=65535)
_SECONDS = validators.Number(gt=0)
_SIZE = validators.Number(gt=0)
_LIMITS = ProxyLimits()


def proxy(
    *,
    controller_url: str,
    cluster: str,
    controller_key_file: KeyFileOption = None,
    name: str | None = None,
    host: str = "0.0.0.0",  # noqa: S104 - browsers are on other machines
    https: Annotated[bool, Parameter(negative="")] = False,
    http_port: Annotated[int | None, Parameter(validator=_PORT)] = None,
    https_port: Annotated[int, Parameter(validator=_PORT)] = 443,
    cert_path: Path | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    acme_endpoint: str | None = None,
    acme_email: str | None = None,
    acme_eab_kid: str | None = None,
    acme_eab_hmac_key: Annotated[str | None, Parameter(env_var="PLANE_ACME_EAB_HMAC_KEY")] = None,
    acme_ca: Path | None = None,
    acme_name_server: str | None = None,
    root_redirect_url: str | None = None,
    workers: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=64))] = 1,
    metrics_port: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=65535))] = None,
    metrics_host: str = "127.0.0.1",
    trusted_proxies: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    proxy_protocol: Annotated[bool, Parameter(negative="")] = False,
    waiting_page: Annotated[bool, Parameter(negative="")] = False,
    head_timeout: Annotated[float, Parameter(validator=_SECONDS)] = _LIMITS.head_s,
    idle_timeout: Annotated[float, Parameter(validator=_SECONDS)] = _LIMITS.idle_s,
    connect_timeout: Annotated[float, Parameter(validator=_SECONDS)] = _LIMITS.connect_s,
    body_timeout: Annotated[float, Parameter(validator=_SECONDS)] = _LIMITS.body_s,
    max_head_bytes: Annotated[int, Parameter(validator=_SIZE)] = DEFAULT_LIMITS.head_bytes,
    max_target_bytes: Annotated[int, Parameter(validator=_SIZE)] = DEFAULT_LIMITS.target_bytes,
    max_header_fields: Annotated[int, Parameter(validator=_SIZE)] = DEFAULT_LIMITS.fields,
    max_chunk_line_bytes: Annotated[int, Parameter(validator=_SIZE)] = DEFAULT_LIMITS.chunk_line_bytes,
) -> None:
    """Run a proxy, which forwards the requests of browsers to backends.

    Example: plane proxy --controller-url http://10.0.0.1:8080 --cluster plane.example.com:9090

    Parameters
    ----------
    controller_url
        The controller, as http://HOST:PORT or https://HOST.
    cluster
        Host name (and port) under which browsers reach this proxy, as HOST or HOST:PORT.
    name
        Name of this proxy, px-…; default random.
    host
        Address to listen on.
    https
        Serve TLS; the HTTP port then only redirects. Needs a certificate.
    http_port
        Port of plain HTTP; default 9090, with --https 80; 0 for any free one.
    https_port
        Port of TLS.
    cert_path
        Certificate as a JSON file {"cert": PEM chain, "key": PEM}, mode 0600.
    tls_cert
        Certificate chain as a PEM file, with --tls-key.
    tls_key
        Private key of --tls-cert as a PEM file that only its owner and group can read.
    acme_endpoint
        URL of the ACME directory of a CA; the proxy orders the certificate there by DNS-01.
    acme_email
        Email address of contact for the CA.
    acme_eab_kid
        Key id, if the CA requires an external account binding.
    acme_eab_hmac_key
        Key of the external account binding, base64url.
    acme_ca
        PEM file of a private CA to trust for --acme-endpoint.
    acme_name_server
        Address (and port) of the name server to query for the challenge; default those of its zone.
    root_redirect_url
        Target of /; without it, / gets 400.
    workers
        Processes that share the ports; one per core that the traffic may use.
    metrics_port
        Port of /metrics for Prometheus; each further worker has the next one. Default: no metrics.
    metrics_host
        Address of that port.
    trusted_proxies
        Networks or addresses of load balancers, as 10.0.0.0/8; may be given several times. Their X-Forwarded-For,
        X-Forwarded-Proto and X-Forwarded-Host are used; those of other clients are replaced.
    proxy_protocol
        Connections of trusted proxies begin with a header of the PROXY protocol, version 1 or 2.
    waiting_page
        Show browsers a page while a backend starts; it opens the application when that is ready.
    head_timeout
        Seconds from the first byte of a request to the end of its head.
    idle_timeout
        Seconds between two requests of a connection.
    connect_timeout
        Seconds for a backend to accept a connection.
    body_timeout
        Seconds without progress of a body, because one side does not send or does not read.
    max_head_bytes
        Largest request head in bytes; larger ones get 431.
    max_target_bytes
        Longest request target in bytes; longer ones get 414.
    max_header_fields
        Most header fields of a request; more get 431.
    max_chunk_line_bytes
        Longest size line of a chunk with its extensions, and longest trailer field; longer ones get 400.
    """
    from plane.cli.serving import serve

    acme = acme_settings(acme_endpoint, acme_email, acme_eab_kid, acme_eab_hmac_key, acme_ca, acme_name_server)
    check_certificate_options(https, cert_path, tls_cert, tls_key, has_acme=acme is not None)
    settings = ProxySettings(
        controller_url=controller_access(controller_url, controller_key_file),
        cluster=cluster_name(cluster),
        name=node_name(name, Prefix.PROXY),
        host=host,
        http_port=http_port if http_port is not None else (80 if https else 9090),
        https_port=https_port if https else None,
        cert_path=cert_path,
        tls_pair=(tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None,
        acme=acme,
        root_redirect_url=root_redirect_url,
        workers=workers,
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        trusted_proxies=trusted_networks(trusted_proxies or (), proxy_protocol=proxy_protocol),
        proxy_protocol=proxy_protocol,
        waiting_page=waiting_page,
        traces=traces_are_exported(os.environ),
        limits=ProxyLimits(head_s=head_timeout, idle_s=idle_timeout, connect_s=connect_timeout, body_s=body_timeout),
        http_limits=HttpLimits(
            head_bytes=max_head_bytes,
            target_bytes=max_target_bytes,
            fields=max_header_fields,
            chunk_line_bytes=max_chunk_line_bytes,
        ),
    )
    serve(proxy_component(settings))


@asynccontextmanager
async def proxy_component(settings: ProxySettings) -> AsyncIterator[Running]:
    """Run a proxy while the block runs, with its worker processes and hot restart on SIGUSR2."""
    import asyncio
    import signal

    from plane.cli.proxy_worker import COMMAND
    from plane.proxy.server import start_proxy

    command = [sys.executable, *sys.orig_argv[1:]]
    async with start_proxy(settings, worker_command=COMMAND, successor_command=command) as proxy:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, proxy.restart)
        yield proxy
