"""The blocking client offers the same methods as the asynchronous one."""

from __future__ import annotations

import inspect

from plane.client import AsyncPlane, Plane


def public(client: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in vars(client).items()
        if not name.startswith("_") and callable(member)
    }


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    asynchronous, blocking = public(AsyncPlane), public(Plane)
    assert asynchronous.keys() == blocking.keys()
    assert {name: list(signature.parameters) for name, signature in asynchronous.items()} == {
        name: list(signature.parameters) for name, signature in blocking.items()
    }
