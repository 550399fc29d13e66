"""The route cache, the connection monitor, the sweep, the chunk scanner, and the header rules as properties."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.backends.idle_sweep import SweepCandidate, sweep
from plane.decisions.http.chunks import ChunkDecoder, ChunkScanner, MalformedChunks
from plane.decisions.http.request_head import (
    KNOWN_LIMIT,
    KNOWN_LIMIT_BYTES,
    RequestFields,
    RequestReader,
    RequestRefused,
)
from plane.decisions.routing.activity_monitor import ActivityMonitor
from plane.decisions.routing.host_names import HostNames
from plane.decisions.routing.rewrite import forwarded_head, make_route, origin_form, split_target
from plane.decisions.routing.route_cache import (
    DISCONNECTED_LIFETIME_S,
    NEGATIVE_LIFETIME_S,
    REMOVED_LIFETIME_S,
    REVOKED_LIFETIME_S,
    RouteCache,
)
from plane.protocol.errors import MessageError
from plane.protocol.proxy_messages import RouteInfo
from plane.timing import HEARTBEAT_INTERVAL_S, SWEEP_INTERVAL_S


def test_a4_an_expired_token_leads_nowhere_cached_or_not() -> None:
    cache: RouteCache[str] = RouteCache()
    cache.put("t", "route", "b", expires_at=10.0, now=0.0)
    assert cache.get("t", 9.9) == "route"
    assert cache.get("t", 10.0) is None


def test_a5_bad_tokens_are_forgotten_soon_and_evict_no_route() -> None:
    cache: RouteCache[str] = RouteCache(routes_limit=2, negatives_limit=2)
    cache.put("good", "route", "b", None, 0.0)
    for number in range(100):
        cache.put_gone(f"bad{number}", now=0.0)
    assert cache.get("good", 0.0) == "route"
    assert cache.get("bad99", 0.0) == "gone"
    assert cache.get("bad0", 0.0) is None
    assert cache.get("bad99", NEGATIVE_LIFETIME_S) is None


def test_the_least_recently_used_route_goes_first() -> None:
    cache: RouteCache[str] = RouteCache(routes_limit=2)
    for token in ("a", "b"):
        cache.put(token, token, "backend", None, 0.0)
    cache.get("a", 0.0)
    cache.put("c", "c", "backend", None, 0.0)
    assert [cache.get(token, 0.0) for token in ("a", "b", "c")] == ["a", None, "c"]
    cache.remove_backend("backend", 0.0)
    assert [cache.get(token, 0.0) for token in ("a", "c")] == [None, None]


def test_a_tunnel_is_kept_alive_each_interval_and_once_more_when_it_ends() -> None:
    monitor = ActivityMonitor()
    assert monitor.use_started("b", 0.0) is True
    sent = [now / 2 for now in range(1, 41) if monitor.poll(now / 2)]
    assert sent == [HEARTBEAT_INTERVAL_S * number for number in range(1, 5)]
    monitor.use_ended("b")
    looks = [monitor.poll(20.5 + n / 2) for n in range(6)]
    assert looks.count(["b"]) == 1
    assert monitor.in_use() == []


def test_a_burst_of_requests_is_told_at_once_and_when_it_is_over() -> None:
    monitor = ActivityMonitor()
    told = [monitor.use_started("b", 0.0) for _ in range(3)]
    assert told == [True, False, False]
    for _ in range(3):
        monitor.use_ended("b")
    looks = [monitor.poll(0.5 * n) for n in range(1, 6)]
    assert looks.count(["b"]) == 1


def test_the_sweep_looks_again_when_the_next_is_due() -> None:
    assert sweep([]) == ([], SWEEP_INTERVAL_S)
    due, later = SweepCandidate("a", 1, -1.0), SweepCandidate("b", 2, 2.5)
    assert sweep([due, later]) == ([due], 2.5)
    assert sweep([SweepCandidate("b", 2, 0.001)])[1] > 0.1


CHUNKED = b"3;a=b\r\nabc\r\n0a\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n"


@given(cuts=st.lists(st.integers(0, 60), max_size=20), rest=st.binary(max_size=10))
def test_the_data_of_chunks_is_passed_on_however_they_are_cut(cuts: list[int], rest: bytes) -> None:
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
def test_a_chunked_body_ends_where_it_ends_however_it_is_cut(cuts: list[int], rest: bytes) -> None:
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
def test_a12_forged_trailers_are_left_out_however_they_are_cut(cuts: list[int]) -> None:
    scanner, passed = ChunkScanner(), b""
    for start, end in itertools.pairwise([0, *sorted(cuts), len(FORGED)]):
        passed += scanner.feed(FORGED[start:end])[0]
    assert scanner.done
    assert passed == b"2\r\nok\r\n0\r\nA: 1\r\nX-Verify: mine\r\n\r\n"


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_make_the_scanner_take_more_than_there_is(data: bytes, cut: int) -> None:
    scanner = ChunkScanner()
    for piece in (data[:cut], data[cut:]):
        try:
            assert 0 <= scanner.feed(piece)[1] <= len(piece)
        except MalformedChunks:
            return


INFO = RouteInfo(
    backend_id="b", address="127.0.0.1:1", secret_token="secret", cluster="c:1", user="ann", user_data={"ü": "\x7f"}
)
ROUTE = make_route("t", INFO, b"\r\nserver: x")
NAMES = st.sampled_from(
    ["x-verified-username", "X_Verified_Username", "x-Verified_secret", "X-FORWARDED-FOR", "x_forwarded_proto",
     "x-verified-path", "Accept", "Cookie", "Connection", "Keep-Alive", "x-custom"]
)  # fmt: skip
VALUES = st.sampled_from(["forged", "close", "x-verified-username, x-custom", "x-forwarded-for", "a, b"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_a12_the_backend_sees_exactly_one_of_each_of_ours_with_our_value(fields: list[tuple[str, str]]) -> None:
    lines = "".join(f"\r\n{name}: {value}" for name, value in fields)
    head = RequestReader(HostNames(b"c:1")).read(f"GET /t/p HTTP/1.1\r\nHost: c:1{lines}".encode())
    seen = forwarded_head(head, b"/p", ROUTE, b"\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: http").decode()
    for name, value in (
        ("x-verified-username", "ann"),
        ("x-verified-secret", "secret"),
        ("x-verified-backend", "b"),
        ("x-verified-path", "/t/p"),
        ("x-verified-user-data", '{"\\u00fc":"\\u007f"}'),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "http"),
    ):
        pattern = re.escape(name).replace("\\-", "[-_]")
        found = re.findall(rf"\r\n(?i:{pattern}): ?([^\r\n]*)", seen)
        assert found == [value], name
    assert seen.isascii()


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_fail_in_another_way_than_refusing(data: bytes) -> None:
    for head in (data, b"GET /t HTTP/1.1\r\nHost: c:1" + data, b"GET /" + data + b" HTTP/1.1\r\nHost: c:1"):
        try:
            read = RequestReader(HostNames(b"c:1")).read(head)
            token, forwarded = split_target(origin_form(read))
        except RequestRefused:
            continue
        assert forwarded.startswith(b"/")
        assert "/" not in token
        assert b"\r\n\r\n" not in head


def test_a_reader_does_not_mix_up_what_it_remembers() -> None:
    reader = RequestReader(HostNames(b"c:1"))
    first = reader.read(b"GET /a HTTP/1.1\r\nHost: c:1\r\nConnection: close")
    again = reader.read(b"GET /b HTTP/1.1\r\nHost: c:1\r\nConnection: close")
    older = reader.read(b"GET /b HTTP/1.0\r\nHost: c:1\r\nConnection: close")
    other = reader.read(b"GET /b HTTP/1.1\r\nHost: c:1")
    assert (again.target, again.fields) == (b"/b", first.fields)
    assert older.http_1_0
    assert other.fields.keep_alive
    assert not again.fields.keep_alive


def test_fields_are_remembered_from_one_connection_to_the_next_and_not_without_bound() -> None:
    reader = RequestReader(HostNames(b"c:1"))

    def fields(more: str) -> RequestFields:
        return reader.read(f"GET /a HTTP/1.1\r\nHost: c:1\r\n{more}".encode()).fields

    first = fields("a: 1")
    assert fields("a: 1") is first
    large = "a: " + "1" * KNOWN_LIMIT_BYTES
    assert fields(large) is not fields(large)
    for number in range(KNOWN_LIMIT):
        fields(f"b: {number}")
    again = fields("a: 1")
    assert again is not first
    assert again == first


def test_a13_a_value_that_no_header_can_carry_is_no_route() -> None:
    with pytest.raises(MessageError, match="x-verified-username"):
        make_route(
            "t", RouteInfo(backend_id="b", address="127.0.0.1:1", secret_token="", cluster="c", user="a\nb"), b""
        )


def test_a3_a_revoked_token_stays_gone_whatever_an_older_answer_says() -> None:
    cache: RouteCache[str] = RouteCache()
    cache.put("t", "route", "b", None, 0.0)
    cache.revoke("t", now=0.0)
    cache.put("t", "route", "b", None, 0.0)
    assert cache.get("t", 1.0) == "gone"
    assert cache.get("t", REVOKED_LIFETIME_S) is None


def test_after_a_reconnect_a_route_is_asked_for_again() -> None:
    cache: RouteCache[str] = RouteCache()
    cache.put("t", "route", "b", None, 0.0)
    cache.disconnected(10.0)
    assert cache.get("t", 10.0) == "route"
    cache.connected(11.0)
    assert cache.get("t", 11.0) is None
    cache.put("t", "other", "b", None, 12.0)
    assert cache.get("t", 1_000_000.0) == "other"


def test_without_a_controller_routes_are_followed_for_a_lease() -> None:
    cache: RouteCache[str] = RouteCache()
    cache.put("t", "route", "b", None, 0.0)
    cache.put("u", "route", "b", None, 0.0)
    cache.disconnected(10.0)
    cache.disconnected(60.0)
    assert cache.get("t", 9.9 + DISCONNECTED_LIFETIME_S) == "route"
    assert cache.get("t", 10.0 + DISCONNECTED_LIFETIME_S) == "unconfirmed"
    assert cache.get("x", 10.0 + DISCONNECTED_LIFETIME_S) is None
    # Connections that last no time confirm nothing that was not asked for on them.
    for now in (20.0, 30.0, 40.0):
        cache.connected(now)
        cache.put("u", "route", "b", None, now)
        cache.disconnected(now + 1)
    assert cache.get("t", 9.9 + DISCONNECTED_LIFETIME_S) == "route"
    assert cache.get("t", 10.0 + DISCONNECTED_LIFETIME_S) == "unconfirmed"
    assert cache.get("u", 40.9 + DISCONNECTED_LIFETIME_S) == "route"
    assert cache.get("u", 41.0 + DISCONNECTED_LIFETIME_S) == "unconfirmed"


def test_a_doubted_route_is_asked_for_or_not_followed() -> None:
    cache: RouteCache[str] = RouteCache()
    cache.put("t", "route", "b", None, 0.0)
    cache.distrust()
    assert cache.get("t", 0.0) is None
    cache.disconnected(0.0)
    assert cache.get("t", 0.0) == "unconfirmed"


def test_an_answer_on_its_way_does_not_bring_a_backend_back() -> None:
    cache: RouteCache[str] = RouteCache()
    cache.remove_backend("b", 0.0)
    cache.put("t", "route", "b", None, 1.0)
    cache.put("u", "route", "c", None, 1.0)
    assert (cache.get("t", 1.0), cache.get("u", 1.0)) == ("gone", "route")
    cache.forget_backend("c")
    cache.put("u", "route", "c", None, REMOVED_LIFETIME_S)
    cache.put("t", "route", "b", None, REMOVED_LIFETIME_S)
    assert (cache.get("t", REMOVED_LIFETIME_S), cache.get("u", REMOVED_LIFETIME_S)) == ("route", "route")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["connected", "disconnected", "doubt", "ended", "put", "get"]),
        st.sampled_from("ab"),
        st.floats(0, 50),
    ),
    max_size=40,
)


@given(STEPS)
def test_no_route_is_followed_whose_end_would_not_have_been_told_of(steps: list[tuple[str, str, float]]) -> None:
    """A model: an ended backend is told of at once while connected. Its route is followed less than a lease after."""
    cache: RouteCache[str] = RouteCache()
    now, connected = 0.0, True
    ended_at: dict[str, float] = {}
    cached: set[str] = set()
    for step, backend, passed in steps:
        now += passed
        match step:
            case "connected" if not connected:
                cache.connected(now)
                connected = True
            case "disconnected" if connected:
                cache.disconnected(now)
                connected = False
            case "doubt":
                cache.distrust()
            case "ended" if backend not in ended_at:
                ended_at[backend] = now
                if connected:
                    cache.remove_backend(backend, now)
            case "put" if connected and backend not in ended_at:
                cache.put(backend, backend, backend, None, now)
                cached.add(backend)
            case _:
                if cache.get(backend, now) == backend:
                    assert backend in cached
                    assert backend not in ended_at or now - ended_at[backend] < DISCONNECTED_LIFETIME_S
                    assert backend not in ended_at or not connected
