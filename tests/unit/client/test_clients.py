"""One source of truth: the two clients offer the same, and calls say what page 2 says."""

from __future__ import annotations

import inspect

import pytest

from plane.client import AsyncPlane, CallRefused, Plane, UnexpectedResponse, calls
from plane.protocol.control_api import ConnectRequest
from plane.protocol.errors import ApiErrorKind
from plane.protocol.keys import KeyConfig


def public(client: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in vars(client).items()
        if not name.startswith("_") and callable(member)
    }


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    asked, waited = public(AsyncPlane), public(Plane)
    assert asked.keys() == waited.keys()
    assert {name: list(signature.parameters) for name, signature in asked.items()} == {
        name: list(signature.parameters) for name, signature in waited.items()
    }


def test_a_connect_without_key_is_sent_once() -> None:
    assert not calls.connect(ConnectRequest()).idempotent
    assert calls.connect(ConnectRequest(key=KeyConfig(name="k"))).idempotent


def test_names_cannot_leave_their_part_of_the_path() -> None:
    assert calls.status("../../ctrl/status?").path == "/pub/b/..%2F..%2Fctrl%2Fstatus%3F/status"
    assert calls.drain("c:1", "dr-x", undo=True).path == "/ctrl/c/c%3A1/d/dr-x/undrain"


@pytest.mark.parametrize(
    ("status", "body", "kind", "message", "error_id"),
    [
        (409, b'{"id":"i","kind":"KeyHeld","message":"m"}', ApiErrorKind.KEY_HELD, "m", "i"),
        (401, b"Unauthorized", ApiErrorKind.OTHER, "Unauthorized", None),
        (404, b"", ApiErrorKind.OTHER, "refused without a reason", None),
        (500, b'{"id":1}', ApiErrorKind.OTHER, '{"id":1}', None),
    ],
)
def test_refusals(status: int, body: bytes, kind: ApiErrorKind, message: str, error_id: str | None) -> None:
    with pytest.raises(CallRefused) as refused:
        calls.parse_response(calls.controller_status(), status, body)
    found = refused.value
    assert (found.status, found.kind, found.message, found.error_id) == (status, kind, message, error_id)


def test_an_answer_of_another_server_is_said_to_be_one() -> None:
    with pytest.raises(UnexpectedResponse, match="GET /ctrl/status"):
        calls.parse_response(calls.controller_status(), 200, b"<html>")
