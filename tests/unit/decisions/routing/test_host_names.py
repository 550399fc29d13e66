"""A public name stands for the cluster's; every other host stays what it is."""

from __future__ import annotations

import pytest

from plane.decisions.routing.host_names import HostNames

NAMES = HostNames(b"c:1", (b"127.0.0.1:1", b"forwarded.example"))


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        (b"c:1", b"c:1"),
        (b"127.0.0.1:1", b"c:1"),
        (b"Forwarded.example", b"c:1"),
        (b"forwarded.example:443", b"c:1"),
        (b"sub.forwarded.example", b"sub.c:1"),
        (b"127.0.0.1:2", b"127.0.0.1:2"),
        (b"notforwarded.example", b"notforwarded.example"),
        (b"forwarded.example.evil", b"forwarded.example.evil"),
    ],
)
def test_public_names_are_read_as_the_clusters(host: bytes, canonical: bytes) -> None:
    assert NAMES.canonical(host) == canonical
    assert NAMES.include(host) == (canonical in (b"c:1", b"sub.c:1"))


def test_without_public_names_a_host_is_not_touched() -> None:
    assert HostNames(b"c:1").canonical(b"SUB.c:1") == b"SUB.c:1"
