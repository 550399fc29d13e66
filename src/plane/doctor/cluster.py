"""Checks of the way to other parts: controller, backends, names, certificate, DNS delegation."""

from __future__ import annotations

import asyncio
import datetime
import socket

import aiohttp
import dns.asyncresolver
import dns.exception
import dns.rdatatype

from plane.decisions.diagnosis import Finding, Status, certificate_finding, delegation_finding, passed
from plane.doctor.machine import local_addresses
from plane.protocol.names import cluster_host
from plane.proxy.certificates.files import CertificateFiles
from plane.proxy.certificates.tls import InvalidCertificate
from plane.settings import AcmeSettings, ProxySettings
from plane.transport.controller_url import ControllerUrl
from plane.transport.request_errors import request_error_reason

__all__ = [
    "check_acme_delegation",
    "check_backends",
    "check_certificate",
    "check_cluster_name",
    "check_controller",
    "check_zone",
]

BACKENDS_CHECKED = 10
CONNECT_TIMEOUT_S = 3.0


async def check_controller(url: ControllerUrl, socket_path: str) -> Finding:
    """Check that a controller responds and accepts this node's key.

    Args:
        socket_path: the path of the node's WebSocket; a plain GET of it shows whether the key is accepted.
    """
    try:
        async with aiohttp.ClientSession(headers=url.headers) as http:
            async with http.get(url.http("/pub/health")) as response:
                if response.status != 200:
                    return Finding(
                        Status.FAILED,
                        f"{url.base} responds with status {response.status}",
                        "check the controller's log; its database may be unreachable",
                    )
            async with http.get(url.http(socket_path)) as response:
                refused = response.status in (401, 403)
    except (aiohttp.ClientError, OSError) as error:
        return Finding(
            Status.FAILED,
            f"{url.base} cannot be reached: {request_error_reason(error)}",
            "check --controller-url, that the controller runs and listens on that address, and firewalls",
        )
    if refused:
        return Finding(
            Status.FAILED,
            f"{url.base} refuses this node's key",
            "give the node a key of the role node: --controller-key-file, or PLANE_CONTROLLER_KEY",
        )
    return passed(f"{url.base} responds")


async def check_backends(url: ControllerUrl, cluster: str) -> Finding:
    """Check that this machine, which runs a proxy, reaches the addresses of backends that are ready."""
    try:
        addresses = await _ready_addresses(url, cluster)
    except (aiohttp.ClientError, OSError, ValueError, KeyError):
        return Finding(Status.SKIPPED, "the controller cannot be asked for backends")
    if addresses is None:
        return Finding(Status.SKIPPED, "a key of the role read is needed to list backends")
    if not addresses:
        return Finding(Status.SKIPPED, "no backend is ready")
    unreachable = [address for address in addresses if not await _connects(address)]
    if unreachable:
        return Finding(
            Status.FAILED,
            f"cannot connect to {', '.join(unreachable)}",
            "give the drone an address that this machine reaches (--ip), and open its backend ports in firewalls",
        )
    return passed(f"{len(addresses)} backend address{'es' if len(addresses) > 1 else ''} reached")


async def _ready_addresses(url: ControllerUrl, cluster: str) -> list[str] | None:
    """Return addresses of some ready backends, or None if the key may not list them."""
    query = {"cluster": cluster, "status": "ready", "limit": str(BACKENDS_CHECKED)}
    async with aiohttp.ClientSession(headers=url.headers) as http:
        async with http.get(url.http("/ctrl/backends"), params=query) as response:
            if response.status in (401, 403):
                return None
            names = [each["id"] for each in (await response.json())["backends"]]
        addresses = []
        for name in names:
            async with http.get(url.http(f"/ctrl/b/{name}")) as response:
                address = (await response.json()).get("address")
                if address is not None:
                    addresses.append(str(address))
    return addresses


async def _connects(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError:
        return False
    writer.close()
    return True


async def check_cluster_name(cluster: str) -> Finding:
    """Check that browsers can resolve the cluster's name, and names below it."""
    host = cluster_host(cluster)
    loop = asyncio.get_running_loop()
    missing = []
    for name in (host, f"plane-doctor.{host}"):
        try:
            await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except OSError:
            missing.append(name)
    if host in missing:
        return Finding(
            Status.FAILED, f"{host} cannot be resolved", f"add an address record for {host} that leads to this proxy"
        )
    if missing:
        return Finding(
            Status.WARNING,
            f"names below {host} cannot be resolved",
            f"add an address record for *.{host}, for backends with a subdomain",
        )
    return passed(f"{host} and names below it resolve")


async def check_certificate(settings: ProxySettings) -> Finding:
    """Check the certificate's files."""
    if settings.cert_path is None and settings.tls_pair is None:
        return Finding(Status.SKIPPED, "the certificate is ordered by ACME and kept in memory")
    files = CertificateFiles(json=settings.cert_path, pair=settings.tls_pair)
    try:
        certificate = await asyncio.to_thread(files.read)
    except FileNotFoundError as error:
        if settings.acme is not None:
            return Finding(Status.SKIPPED, f"{error.filename} does not exist; the proxy orders the certificate")
        return Finding(
            Status.FAILED, f"{error.filename} does not exist", "put the certificate there, or order it: --acme-endpoint"
        )
    except InvalidCertificate as error:
        return Finding(Status.FAILED, str(error), "correct the file")
    now = datetime.datetime.now(datetime.UTC)
    host = cluster_host(settings.cluster)
    return certificate_finding(certificate.names, certificate.not_before, certificate.not_after, host, now)


async def check_acme_delegation(cluster: str, acme: AcmeSettings) -> Finding:
    """Check that the challenge of a cluster's certificate leads to a zone with name servers."""
    name = f"_acme-challenge.{cluster_host(cluster)}"
    resolver = _resolver(acme.name_server)
    try:
        alias = await resolver.resolve(name, dns.rdatatype.CNAME)
    except dns.exception.DNSException:
        return Finding(
            Status.WARNING,
            f"{name} is not an alias",
            f"add a CNAME record from {name} to {cluster_host(cluster)}.ZONE, where ZONE is that of `plane dns`",
        )
    return passed(f"{name} leads to {alias[0].target.to_text(omit_final_dot=True)}")


async def check_zone(zone: str) -> Finding:
    """Check that a zone is delegated to this machine."""
    resolver = _resolver(None)
    loop = asyncio.get_running_loop()
    addresses: set[str] = set()
    try:
        records = await resolver.resolve(zone, dns.rdatatype.NS)
        for record in records:
            found = await loop.getaddrinfo(record.target.to_text(omit_final_dot=True), 53, type=socket.SOCK_DGRAM)
            addresses |= {str(address[0]) for *_, address in found}
    except (dns.exception.DNSException, OSError):
        pass
    return delegation_finding(zone, addresses, local_addresses())


def _resolver(server: tuple[str, int] | None) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver()
    resolver.lifetime = CONNECT_TIMEOUT_S
    if server is not None:
        resolver.nameservers, resolver.port = [server[0]], server[1]
    return resolver
