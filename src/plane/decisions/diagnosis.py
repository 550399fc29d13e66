"""Decides what a measured fact means for an operator: fine, a warning, or a failure, and what to do about it.

`plane.doctor` measures the facts. Every advice names the option, command or file to change.
"""

from __future__ import annotations

import datetime
import enum
import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from plane.decisions.drones.startup_warnings import is_unreachable_address
from plane.protocol.addresses import is_loopback

__all__ = [
    "POOLER_ADVICE",
    "Finding",
    "Status",
    "certificate_finding",
    "clock_finding",
    "delegation_finding",
    "disk_finding",
    "drone_address_finding",
    "exit_status",
    "isolation_finding",
    "open_files_finding",
    "passed",
    "pooler_finding",
    "version_finding",
]

MIN_POSTGRES_VERSION = 140000
# Each connection of a client needs two files, and a WebSocket stays open for hours.
RECOMMENDED_OPEN_FILES = 65_536
MIN_OPEN_FILES = 4_096
MIN_FREE_BYTES = 256 * 1024 * 1024
LOW_FREE_BYTES = 2 * 1024 * 1024 * 1024
# Leases do not depend on the machine's clock. Certificates and the times in logs do.
CLOCK_WARNING_S = 5.0
POOLER_ADVICE = (
    "connect to PostgreSQL directly, or use a pooler in session mode that ignores unknown startup parameters; LISTEN "
    "does not work in transaction mode"
)
CERTIFICATE_WARNING = datetime.timedelta(days=14)


class Status(enum.StrEnum):
    """``SKIPPED``: the fact could not be measured here, for the reason in the finding."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        found: the fact, in words.
        advice: what to do; empty for `Status.OK`.
    """

    status: Status
    found: str
    advice: str = ""


def passed(found: str) -> Finding:
    """Return a finding without any objection."""
    return Finding(Status.OK, found)


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 1 if a check failed. Warnings and skipped checks do not count."""
    return int(any(finding.status is Status.FAILED for finding in findings))


def version_finding(server_version_num: int) -> Finding:
    """Assess PostgreSQL's ``server_version_num``."""
    major = server_version_num // 10_000
    if server_version_num < MIN_POSTGRES_VERSION:
        return Finding(Status.FAILED, f"PostgreSQL {major}", "upgrade to PostgreSQL 14 or newer")
    return passed(f"PostgreSQL {major}")


def clock_finding(ahead_s: float) -> Finding:
    """Assess by how much the database's clock is ahead of this machine's, in seconds."""
    found = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s >= 0 else 'behind'} this machine's clock"
    if abs(ahead_s) < CLOCK_WARNING_S:
        return passed(found)
    return Finding(
        Status.WARNING, found, "synchronize both clocks with NTP; let it slew the database's clock, not step it"
    )


def pooler_finding(*, notified: bool) -> Finding:
    """Assess whether a NOTIFY reached a LISTEN of another connection."""
    if notified:
        return passed("notifications arrive")
    return Finding(Status.FAILED, "notifications do not arrive", POOLER_ADVICE)


def open_files_finding(hard_limit: int) -> Finding:
    """Assess the hard limit of open files."""
    advice = "raise it: LimitNOFILE=1048576 in the systemd unit, or ulimit -Hn 1048576 in a shell of root"
    if hard_limit < MIN_OPEN_FILES:
        return Finding(Status.FAILED, f"hard limit {hard_limit}", advice)
    if hard_limit < RECOMMENDED_OPEN_FILES:
        return Finding(Status.WARNING, f"hard limit {hard_limit}", advice)
    return passed(f"hard limit {hard_limit}")


def disk_finding(folder: str, free_bytes: int) -> Finding:
    """Assess the free space of the file system of ``folder``."""
    found = f"{free_bytes / 2**30:.1f} GiB free at {folder}"
    advice = f"free space on the file system of {folder}; a full one stops new backends"
    if free_bytes < MIN_FREE_BYTES:
        return Finding(Status.FAILED, found, advice)
    if free_bytes < LOW_FREE_BYTES:
        return Finding(Status.WARNING, found, advice)
    return passed(found)


def isolation_finding(*, has_bubblewrap: bool, works: bool) -> Finding:
    """Assess whether processes can be isolated with bubblewrap."""
    if works:
        return passed("bubblewrap makes namespaces")
    if not has_bubblewrap:
        return Finding(Status.WARNING, "bubblewrap is not installed", "install it: apt-get install bubblewrap")
    return Finding(
        Status.WARNING,
        "bubblewrap cannot make namespaces",
        "run the drone as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, and on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns=0",
    )


def drone_address_finding(ip: str, local_addresses: Collection[str], controller_url: str) -> Finding:
    """Assess the address at which proxies reach a drone's backends.

    Args:
        local_addresses: those of this machine's interfaces.
    """
    address = ipaddress.ip_address(ip)
    if address.is_unspecified or address.is_multicast:
        return Finding(Status.FAILED, f"{ip} is not the address of a host", "give this machine's address with --ip")
    if is_unreachable_address(ip, controller_url):
        return Finding(
            Status.WARNING,
            f"{ip} is a loopback address and the controller is on another machine",
            "give the address of this machine with --ip, unless every proxy runs here",
        )
    if ip not in local_addresses and not is_loopback(ip):
        return Finding(
            Status.WARNING,
            f"{ip} is not an address of this machine",
            "correct --ip, unless a router forwards that address to this machine",
        )
    return passed(f"{ip} is an address of this machine")


def certificate_finding(
    names: Collection[str],
    not_before: datetime.datetime,
    not_after: datetime.datetime,
    cluster_host: str,
    now: datetime.datetime,
) -> Finding:
    """Assess a certificate for a cluster."""
    left = not_after - now
    found = f"valid until {not_after:%Y-%m-%d} for {', '.join(sorted(names)) or 'no name'}"
    if now < not_before:
        return Finding(Status.FAILED, f"not valid before {not_before:%Y-%m-%d %H:%M}", "check this machine's clock")
    if left <= datetime.timedelta():
        return Finding(
            Status.FAILED, f"expired on {not_after:%Y-%m-%d}", "renew it, or let the proxy order it: --acme-endpoint"
        )
    if cluster_host not in names:
        return Finding(Status.FAILED, found, f"get a certificate for {cluster_host} and *.{cluster_host}")
    if f"*.{cluster_host}" not in names:
        return Finding(Status.WARNING, found, f"backends with a subdomain need *.{cluster_host} in the certificate")
    if left < CERTIFICATE_WARNING:
        return Finding(Status.WARNING, f"{found}, {left.days} days", "renew it, or check the log for failed orders")
    return passed(found)


def delegation_finding(zone: str, servers: Collection[str], local_addresses: Collection[str]) -> Finding:
    """Assess the delegation of a DNS zone to this machine.

    Args:
        servers: the addresses of the name servers that the zone is delegated to.
        local_addresses: those of this machine's interfaces.
    """
    if not servers:
        return Finding(
            Status.FAILED,
            f"no name server for {zone}",
            f"delegate the zone: an NS record of {zone} at its parent, and an address record of that name server",
        )
    found = f"{zone} is delegated to {', '.join(sorted(servers))}"
    if not set(servers) & set(local_addresses):
        return Finding(
            Status.WARNING,
            found,
            "none of them is an address of this machine; correct the delegation unless a router forwards",
        )
    return passed(found)
