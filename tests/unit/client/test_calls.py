"""Requests of the client's calls, and their responses."""

from __future__ import annotations

import pytest

from plane.client import CallRefused, UnexpectedResponse, calls
from plane.protocol.control_api import ConnectRequest
from plane.protocol.errors import ApiErrorKind
from plane.protocol.keys import KeyConfig


def test_connect_without_key_is_not_idempotent() -> None:
    assert not calls.connect(ConnectRequest()).idempotent
    assert calls.connect(ConnectRequest(key=KeyConfig(name="k"))).idempotent


def test_names_are_escaped_in_paths() -> None:
    assert calls.status("../../ctrl/status?").path == "/pub/b/..%2F..%2Fctrl%2Fstatus%3F/status"
    assert calls.drain("c:1", "dr-x", undo=True).path == "/ctrl/c/c%3A1/d/dr-x/undrain"


@pytest.mark.parametrize(
    ("status", "body", "kind", "message", "error_id"),
    [
        (409, b'{"id":"i","kind":"KeyHeld","message":"m"}', ApiErrorKind.KEY_HELD, "m", "i"),
        (401, b"Unauthorized", ApiErrorKind.OTHER, "Unauthorized", None),
        (404, b"", ApiErrorKind.OTHER, "refused without a reason", None),
        (500, b'{"id":1}', ApiErrorKind.OTHER, 'the response is not from a controller: {"id":1}', None),
        (404, b"<html>...", ApiErrorKind.OTHER, "the response is not from a controller: an HTML page", None),
    ],
)
def test_refusals_have_kind_message_and_id(
    status: int, body: bytes, kind: ApiErrorKind, message: str, error_id: str | None
) -> None:
    with pytest.raises(CallRefused) as refused:
        calls.parse_response(calls.controller_status(), status, body)
    found = refused.value
    assert (found.status, found.kind, found.message, found.error_id) == (status, kind, message, error_id)


def test_response_of_another_server_is_unexpected() -> None:
    with pytest.raises(UnexpectedResponse, match="GET /ctrl/status"):
        calls.parse_response(calls.controller_status(), 200, b"<html>")
