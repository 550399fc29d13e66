"""What a readiness probe means, and how patient the next one is."""

from __future__ import annotations

import pytest

from plane.decisions.backends.readiness import (
    Probe,
    classify_response,
    more_informative,
    next_delay_s,
    next_probe_timeout_s,
    not_ready_message,
)


@pytest.mark.parametrize(
    ("received", "ended", "probe"),
    [
        (b"", False, None),
        (b"", True, Probe.CLOSED),
        (b"HTT", False, None),
        (b"HTT", True, Probe.NOT_HTTP),
        (b"HTTP/1.1 500 Internal Server Error", False, Probe.READY),
        (b"HTTP/1.0", True, Probe.READY),
        (b"S", False, Probe.NOT_HTTP),
        (b"SSH-2.0-x\r\n", False, Probe.NOT_HTTP),
        (b"\x15", False, None),
        (b"\x15\x03\x01\x00\x02", False, Probe.TLS),
        (b"\x00\x00\x12", False, None),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", False, Probe.HTTP_2),
        (b"\x00\x00\x12\x07", False, Probe.NOT_HTTP),
        (b"\x00\x00", True, Probe.NOT_HTTP),
    ],
)
def test_first_bytes(received: bytes, ended: bool, probe: Probe | None) -> None:
    assert classify_response(received, ended=ended) is probe


def test_only_silence_makes_the_next_probe_more_patient() -> None:
    limit_s, limits = 1.0, []
    for _ in range(8):
        limit_s = next_probe_timeout_s(limit_s, Probe.SILENT, 1.0)
        limits.append(limit_s)
    assert limits == [2, 4, 8, 16, 32, 60, 60, 60]
    assert next_probe_timeout_s(limit_s, Probe.REFUSED, 1.0) == 1


def test_a_fast_backend_is_seen_within_milliseconds_and_a_slow_one_is_left_in_peace() -> None:
    delay_s, passed_s = None, 0.0
    while passed_s < 1.0:
        delay_s = next_delay_s(delay_s)
        passed_s += delay_s
        assert delay_s < 0.0021 + 0.03 * passed_s
    for _ in range(1000):
        delay_s = next_delay_s(delay_s)
    assert delay_s == 0.1


def test_each_reason_has_words_of_its_own() -> None:
    said = {not_ready_message(probe, 4711, 3.0) for probe in Probe}
    assert len(said) == len(Probe)
    assert all(text.startswith("did not answer HTTP within 3 s: ") and "{" not in text for text in said)


def test_a_last_probe_without_time_says_nothing() -> None:
    assert more_informative(Probe.REFUSED, Probe.UNREACHABLE, 0.001, 1.0) is Probe.REFUSED
    assert more_informative(Probe.REFUSED, Probe.SILENT, 0.5, 1.0) is Probe.SILENT
    assert more_informative(Probe.SILENT, Probe.REFUSED, 0.001, 1.0) is Probe.REFUSED
    assert more_informative(None, Probe.SILENT, 0.001, 1.0) is Probe.SILENT
