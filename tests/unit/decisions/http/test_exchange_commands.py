"""The commands of an exchange: data that a test can compare, and each of them executed by the shell."""

from __future__ import annotations

import ast
import inspect

from plane.decisions.http import exchange_commands
from plane.decisions.http.exchange_commands import (
    Action,
    Command,
    Connect,
    FinishResponse,
    Incident,
    SendClient,
    StartResponse,
)
from plane.proxy.data_plane import client_connection, dispatch


def members_named_in(module: object, enumeration: str) -> set[str]:
    """Return the members of an enumeration that the source of a module names."""
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == enumeration
    }


def test_commands_with_the_same_data_are_equal() -> None:
    whole: list[Command] = [StartResponse(200, b"a"), SendClient(b"a")]
    assert whole == [StartResponse(200, b"a"), SendClient(b"a")]
    assert whole != [FinishResponse(200, b"a"), SendClient(b"a")]


def test_the_client_connection_executes_every_command() -> None:
    # The last branch of `_act_on_upstream`.
    by_default = {"ABORT_UPSTREAM"}
    assert members_named_in(client_connection, "Action") | by_default == set(Action.__members__)
    assert members_named_in(client_connection, "Incident") == set(Incident.__members__)
    source = inspect.getsource(client_connection)
    for name in set(exchange_commands.__all__) - {"Action", "Command", "Incident"}:
        assert source.count(name) > 1, name


def test_the_dispatcher_knows_each_way_to_connect() -> None:
    # Without a free connection all of them end in a new one.
    assert members_named_in(dispatch, "Connect") | {"ONCE"} == set(Connect.__members__)
