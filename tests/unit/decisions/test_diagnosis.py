"""What each fact means: each threshold from both sides, and an advice with every objection."""

from __future__ import annotations

import datetime

import pytest

from plane.decisions.diagnosis import (
    Finding,
    Status,
    certificate_finding,
    clock_finding,
    delegation_finding,
    disk_finding,
    drone_address_finding,
    exit_status,
    isolation_finding,
    open_files_finding,
    passed,
    pooler_finding,
    version_finding,
)

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
LOCAL = {"127.0.0.1", "10.0.0.5"}
BOTH = ("plane.example.com", "*.plane.example.com")


def certificate(names: tuple[str, ...], begins: datetime.timedelta, ends: datetime.timedelta) -> Finding:
    return certificate_finding(names, NOW + begins, NOW + ends, "plane.example.com", NOW)


CASES = {
    "PostgreSQL 13": (version_finding(130014), Status.FAILED),
    "PostgreSQL 14": (version_finding(140000), Status.OK),
    "clock 4.9 s ahead": (clock_finding(4.9), Status.OK),
    "clock 5 s ahead": (clock_finding(5.0), Status.WARNING),
    "clock 6 s behind": (clock_finding(-6.0), Status.WARNING),
    "notified": (pooler_finding(notified=True), Status.OK),
    "not notified": (pooler_finding(notified=False), Status.FAILED),
    "1024 files": (open_files_finding(1024), Status.FAILED),
    "20000 files": (open_files_finding(20_000), Status.WARNING),
    "65536 files": (open_files_finding(65_536), Status.OK),
    "disk of 1 MB": (disk_finding("/d", 2**20), Status.FAILED),
    "disk of 1 GB": (disk_finding("/d", 2**30), Status.WARNING),
    "disk of 3 GB": (disk_finding("/d", 3 * 2**30), Status.OK),
    "isolated": (isolation_finding(has_bubblewrap=True, works=True), Status.OK),
    "no namespaces": (isolation_finding(has_bubblewrap=True, works=False), Status.WARNING),
    "no bubblewrap": (isolation_finding(has_bubblewrap=False, works=False), Status.WARNING),
    "all on one machine": (drone_address_finding("127.0.0.1", LOCAL, "http://localhost:8080"), Status.OK),
    "loopback, controller elsewhere": (
        drone_address_finding("127.0.0.1", LOCAL, "http://10.0.0.1:8080"),
        Status.WARNING,
    ),
    "own address": (drone_address_finding("10.0.0.5", LOCAL, "http://10.0.0.1:8080"), Status.OK),
    "another's address": (drone_address_finding("10.0.0.6", LOCAL, "http://10.0.0.1:8080"), Status.WARNING),
    "no host's address": (drone_address_finding("0.0.0.0", LOCAL, "http://10.0.0.1:8080"), Status.FAILED),
    "good certificate": (certificate(BOTH, -DAY, 60 * DAY), Status.OK),
    "about to end": (certificate(BOTH, -DAY, 13 * DAY), Status.WARNING),
    "ended": (certificate(BOTH, -2 * DAY, -DAY), Status.FAILED),
    "not begun": (certificate(BOTH, DAY, 60 * DAY), Status.FAILED),
    "another name": (certificate(("other.example.com",), -DAY, 60 * DAY), Status.FAILED),
    "no wildcard": (certificate(("plane.example.com",), -DAY, 60 * DAY), Status.WARNING),
    "delegated": (delegation_finding("acme.example.com", ["10.0.0.5"], LOCAL), Status.OK),
    "delegated elsewhere": (delegation_finding("acme.example.com", ["10.0.0.9"], LOCAL), Status.WARNING),
    "not delegated": (delegation_finding("acme.example.com", [], LOCAL), Status.FAILED),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fact_has_its_status_and_every_objection_an_advice(case: str) -> None:
    finding, status = CASES[case]
    assert finding.status is status
    assert finding.found
    assert bool(finding.advice) is (status is not Status.OK)


def test_only_failures_make_the_exit_status_1() -> None:
    fine = [passed("x"), Finding(Status.WARNING, "x", "y"), Finding(Status.SKIPPED, "x")]
    assert exit_status(fine) == 0
    assert exit_status([*fine, Finding(Status.FAILED, "x", "y")]) == 1
