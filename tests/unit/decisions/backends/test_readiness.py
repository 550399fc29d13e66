"""The meaning of a readiness probe, and the delay and timeout of the next one."""

from __future__ import annotations

import pytest

from plane.decisions.backends.readiness import (
    ProbeResult,
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
        (b"", True, ProbeResult.CLOSED),
        (b"HTT", False, None),
        (b"HTT", True, ProbeResult.NOT_HTTP),
        (b"HTTP/1.1 500 Internal Server Error", False, ProbeResult.READY),
        (b"HTTP/1.0", True, ProbeResult.READY),
        (b"S", False, ProbeResult.NOT_HTTP),
        (b"SSH-2.0-x\r\n", False, ProbeResult.NOT_HTTP),
        (b"\x15", False, None),
        (b"\x15\x03\x01\x00\x02", False, ProbeResult.TLS),
        (b"\x00\x00\x12", False, None),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", False, ProbeResult.HTTP_2),
        (b"\x00\x00\x12\x07", False, ProbeResult.NOT_HTTP),
        (b"\x00\x00", True, ProbeResult.NOT_HTTP),
    ],
)
def test_first_bytes_classify_a_response(received: bytes, ended: bool, probe: ProbeResult | None) -> None:
    assert classify_response(received, ended=ended) is probe


def test_only_a_silent_probe_extends_the_next_timeout() -> None:
    limit_s, limits = 1.0, []
    for _ in range(8):
        limit_s = next_probe_timeout_s(limit_s, ProbeResult.SILENT, 1.0)
        limits.append(limit_s)
    assert limits == [2, 4, 8, 16, 32, 60, 60, 60]
    assert next_probe_timeout_s(limit_s, ProbeResult.REFUSED, 1.0) == 1


def test_delays_are_short_at_first_and_bounded() -> None:
    delay_s, passed_s = None, 0.0
    while passed_s < 1.0:
        delay_s = next_delay_s(delay_s)
        passed_s += delay_s
        assert delay_s < 0.0021 + 0.03 * passed_s
    for _ in range(1000):
        delay_s = next_delay_s(delay_s)
    assert delay_s == 0.1


def test_each_result_has_its_own_message() -> None:
    said = {not_ready_message(probe, 4711, 3.0) for probe in ProbeResult}
    assert len(said) == len(ProbeResult)
    assert all(text.startswith("did not respond to HTTP within 3 s: ") and "{" not in text for text in said)


@pytest.mark.parametrize(
    ("previous", "last", "was_cut_short", "result"),
    [
        (None, ProbeResult.SILENT, True, ProbeResult.SILENT),
        (ProbeResult.REFUSED, ProbeResult.UNREACHABLE, True, ProbeResult.REFUSED),
        (ProbeResult.REFUSED, ProbeResult.UNREACHABLE, False, ProbeResult.UNREACHABLE),
        (ProbeResult.REFUSED, ProbeResult.SILENT, True, ProbeResult.SILENT),
        (ProbeResult.TLS, ProbeResult.SILENT, True, ProbeResult.TLS),
        (ProbeResult.TLS, ProbeResult.SILENT, False, ProbeResult.SILENT),
        (ProbeResult.SILENT, ProbeResult.REFUSED, True, ProbeResult.REFUSED),
    ],
)
def test_a_last_probe_that_was_cut_short_is_less_informative(
    previous: ProbeResult | None, last: ProbeResult, was_cut_short: bool, result: ProbeResult
) -> None:
    assert more_informative(previous, last, was_cut_short=was_cut_short) is result
