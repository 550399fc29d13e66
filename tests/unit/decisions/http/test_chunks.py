"""Where a chunked body ends, and which trailers are passed on."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.http.chunks import ChunkDecoder, ChunkScanner, MalformedChunks

CHUNKED = b"3;a=b\r\nabc\r\n0a\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n"


@given(cuts=st.lists(st.integers(0, 60), max_size=20), rest=st.binary(max_size=10))
def test_the_decoder_passes_on_the_data_of_chunks_however_they_are_cut(cuts: list[int], rest: bytes) -> None:
    whole = b"3;x=y\r\nabc\r\nA\r\n0123\r\n6789\r\n0\r\nTrailer: x\r\n\r\n"
    data = whole + rest
    decoder, decoded, taken_total = ChunkDecoder(), b"", 0
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    for start, end in itertools.pairwise([0, *ends]):
        if decoder.done:
            break
        passed, taken = decoder.feed(data[start:end])
        decoded += passed
        taken_total += taken
    assert decoder.done
    assert (decoded, taken_total) == (b"abc0123\r\n6789", len(whole))


@given(st.lists(st.integers(1, len(CHUNKED) + 4), max_size=10), st.binary(max_size=5))
def test_the_scanner_finds_the_end_of_a_body_however_it_is_cut(cuts: list[int], rest: bytes) -> None:
    data = CHUNKED + rest
    scanner, passed, taken = ChunkScanner(), b"", 0
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        piece = data[start:end]
        if scanner.done or not piece:
            continue
        part, count = scanner.feed(piece)
        passed, taken = passed + part, taken + count
    assert scanner.done
    assert taken == len(CHUNKED)
    assert passed == CHUNKED


FORGED = b"2\r\nok\r\n0\r\nA: 1\r\nX_Verified-User: eve\r\nx-forwarded-for: 6.6.6.6\r\nX-Verify: mine\r\n\r\n"


@given(st.lists(st.integers(1, len(FORGED)), max_size=10))
def test_the_scanner_drops_forged_trailers_however_they_are_cut(cuts: list[int]) -> None:
    scanner, passed = ChunkScanner(), b""
    for start, end in itertools.pairwise([0, *sorted(cuts), len(FORGED)]):
        passed += scanner.feed(FORGED[start:end])[0]
    assert scanner.done
    assert passed == b"2\r\nok\r\n0\r\nA: 1\r\nX-Verify: mine\r\n\r\n"


@given(st.binary(max_size=200), st.integers(0, 200))
def test_the_scanner_never_takes_more_than_it_gets(data: bytes, cut: int) -> None:
    scanner = ChunkScanner()
    for piece in (data[:cut], data[cut:]):
        try:
            assert 0 <= scanner.feed(piece)[1] <= len(piece)
        except MalformedChunks:
            return
