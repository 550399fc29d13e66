"""The address of a page of backends, both ways."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from plane.decisions.console.backend_query import ALL, MAX_WATCHED, BackendQuery, parse_query, parse_watched
from plane.protocol.errors import ApiFailure


def parse_address(address: str) -> BackendQuery:
    return parse_query(dict(parse_qsl(urlsplit(address).query)))


@pytest.mark.parametrize(
    "query",
    [
        BackendQuery(),
        BackendQuery(status="ready"),
        BackendQuery(status=ALL, search="a&b=<c> ü", cluster="localhost:9090", drone="dr-x"),
        BackendQuery(search="x", after=(1_800_000_000_123_456, "abc-d")),
    ],
)
def test_an_address_is_parsed_as_what_made_it(query: BackendQuery) -> None:
    assert parse_address(query.address()) == query


def test_the_next_page_keeps_the_filters_and_the_first_page_drops_the_place() -> None:
    query = BackendQuery(search="x", status=ALL)
    following = query.next_page(5, "b")
    assert (following.search, following.status, following.after) == ("x", ALL, (5, "b"))
    assert following.first_page() == query


@pytest.mark.parametrize(
    "parameters",
    [
        {"status": "alive"},
        {"after": "1"},
        {"after": "1-"},
        {"after": "-1-a"},
        {"after": "123456789012345678-a"},
        {"after": "1-a b"},
        {"q": "a\0b"},
        {"q": "a\nb"},
        {"cluster": "x" * 257},
    ],
)
def test_bad_parameters_are_refused_by_name(parameters: dict[str, str]) -> None:
    with pytest.raises(ApiFailure, match=f"query parameter {next(iter(parameters))}") as failure:
        parse_query(parameters)
    assert failure.value.status == 400


def test_a_filter_is_anything_but_the_place() -> None:
    assert not BackendQuery(after=(1, "a")).is_filtered
    assert BackendQuery(search="a").is_filtered
    assert BackendQuery(status=ALL).is_filtered


def test_watched_ids_are_bounded_and_distinct() -> None:
    assert parse_watched("") == []
    assert parse_watched("a,b,a") == ["a", "b"]
    for text in (",", "a,", "a b", "<i>", ",".join(f"b{number}" for number in range(MAX_WATCHED + 1))):
        with pytest.raises(ApiFailure):
            parse_watched(text)
