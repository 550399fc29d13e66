"""`plane dns`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from plane.cli.arguments import ip_address, node_name
from plane.cli.controller_access import KeyFileOption, controller_access
from plane.protocol.names import Prefix
from plane.settings import DnsSettings

__all__ = ["dns"]


def dns(
    *,
    controller_url: str,
    zone: str,
    controller_key_file: KeyFileOption = None,
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 53,
    host: Annotated[list[str] | None, Parameter(negative="")] = None,
    name: str | None = None,
    metrics_port: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=65535))] = None,
    metrics_host: str = "127.0.0.1",
) -> None:
    """Run the ACME DNS server: it responds to the DNS-01 challenges of clusters whose proxies order certificates.

    Delegate a zone to it (an NS record), and point _acme-challenge.CLUSTER at CLUSTER.ZONE with a CNAME.

    Example: plane dns --controller-url http://10.0.0.1:8080 --zone acme.example.com

    Parameters
    ----------
    controller_url
        The controller, as http://HOST:PORT or https://HOST.
    zone
        Zone that is delegated to this server, such as acme.example.com.
    port
        Port to listen on, UDP and TCP; 0 for any free one.
    host
        Address to listen on; may be given several times. Default: all of IPv4, and of IPv6 where the machine has it.
    name
        Name of this server, ns-…; default random.
    metrics_port
        Port of /metrics for Prometheus, /livez and /readyz. Default: none of them.
    metrics_host
        Address for the same; 0.0.0.0 for Prometheus on another machine.
    """
    from plane.cli.serving import serve
    from plane.dns.server import start_dns

    serve(
        start_dns(
            DnsSettings(
                controller_url=controller_access(controller_url, controller_key_file),
                name=node_name(name, Prefix.ACME_DNS_SERVER),
                zone=zone,
                hosts=tuple(ip_address(each, "--host") for each in host) if host else DnsSettings.all_hosts(),
                port=port,
                metrics_host=metrics_host,
                metrics_port=metrics_port,
            )
        )
    )
