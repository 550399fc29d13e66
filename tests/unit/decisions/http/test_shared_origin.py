"""Which response fields are dropped where backends share an origin."""

from __future__ import annotations

import pytest

from plane.decisions.http.response_head import read_response_head
from plane.decisions.http.shared_origin import DROPPED_FIELDS, FIELDS, OriginField, own_scope


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_a_field_is_dropped_only_where_the_origin_is_shared(field: OriginField) -> None:
    name, dropped = field.name, field.dropped
    head = f"HTTP/1.1 200 OK\r\n{name.title()}: x".encode()
    assert (b": x" in read_response_head(head, to_head_request=False, shares_origin=True).fields) is not dropped
    assert b": x" in read_response_head(head, to_head_request=False, shares_origin=False).fields


def test_names_are_unique_and_in_lower_case_and_each_has_a_reason() -> None:
    names = [field.name for field in FIELDS]
    assert names == [name.lower() for name in names]
    assert len(set(names)) == len(names)
    assert all(field.reason.endswith(".") for field in FIELDS)
    assert {field.name.encode() for field in FIELDS if field.dropped} == DROPPED_FIELDS


def test_a_service_worker_of_the_token_is_limited_to_the_folder_of_the_token() -> None:
    assert own_scope("t") == b"\r\nService-Worker-Allowed: /t/"
