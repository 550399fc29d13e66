"""What was recorded from Plane 0.5.5 decodes, and encodes to the same JSON; unknown fields are ignored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plane.protocol import codec
from plane.protocol.backend_state import BackendStatusStreamEntry, state_from_json
from plane.protocol.control_api import ClusterState, ConnectRequest, ConnectResponse, ControllerStatus, DrainResult
from plane.protocol.dns_messages import MessageFromDns, MessageToDns
from plane.protocol.drone_messages import BackendAction, BackendMetrics, MessageFromDrone, MessageToDrone
from plane.protocol.errors import ApiError
from plane.protocol.executor_messages import RequestLine, ResponseLine
from plane.protocol.handshake import Handshake
from plane.protocol.notifications import Event, NodeConnection
from plane.protocol.proxy_messages import MessageFromProxy, MessageToProxy

GOLDEN = Path(__file__).parent / "golden"
SOCKETS: dict[str, tuple[Any, Any]] = {
    "drone": (MessageFromDrone, MessageToDrone),
    "proxy": (MessageFromProxy, MessageToProxy),
    "dns": (MessageFromDns, MessageToDns),
}


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / name).read_text().splitlines()]


def recorded() -> Iterator[Any]:
    """(kind, JSON) of every recorded message."""
    for role, (from_node, to_node) in SOCKETS.items():
        for line in lines(f"ws_controller_{role}.jsonl"):
            if "message" in line:
                sent_by_node = line["direction"].startswith(role)
                kind = Handshake if "version" in line["message"] else from_node if sent_by_node else to_node
                yield pytest.param(kind, line["message"])
    for line in lines("executor_socket.jsonl"):
        yield pytest.param(RequestLine if line["direction"].startswith("drone") else ResponseLine, line["line"])
    for line in lines("notifications.jsonl"):
        payload = line["payload"]["payload"]
        match line["payload"]["kind"]:
            case "backend_action":
                yield pytest.param(BackendAction, payload)
            case "node_connection":
                yield pytest.param(NodeConnection, payload)
            case "backend_metrics":
                yield pytest.param(BackendMetrics, payload)
    for line in lines("http.jsonl"):
        yield from bodies(line)


def bodies(line: dict[str, Any]) -> Iterator[Any]:
    """The bodies of a recorded HTTP exchange that have a type here."""
    body = line.get("body")
    if not isinstance(body, dict):
        return
    path = line["path"]
    if "kind" in body:
        yield pytest.param(ApiError, body)
    elif path == "/ctrl/connect":
        yield pytest.param(ConnectResponse, body)
    elif path == "/ctrl/status":
        yield pytest.param(ControllerStatus, body)
    elif path.endswith("/state"):
        yield pytest.param(ClusterState, body)
    elif path.endswith("/drain"):
        yield pytest.param(DrainResult, body)
    elif path.endswith("/status"):
        yield pytest.param(BackendStatusStreamEntry, body)


@pytest.mark.parametrize(("kind", "message"), list(recorded()))
def test_a_recording_makes_the_round_trip(kind: Any, message: Any) -> None:
    decoded = codec.decode(json.dumps(message), kind)
    assert json.loads(codec.encode(decoded)) == message


def with_unknown_fields(value: Any) -> Any:
    """The same with a field that nobody knows, wherever an object is no externally tagged enumeration."""
    if not isinstance(value, dict):
        return value
    # `env` is a map, in which no field is unknown.
    changed = {name: member if name == "env" else with_unknown_fields(member) for name, member in value.items()}
    tagged = len(value) == 1 and next(iter(value))[:1].isupper()
    return changed if tagged else {**changed, "unknown_field": {"of": ["a later version"]}}


@pytest.mark.parametrize(("kind", "message"), list(recorded()))
def test_unknown_fields_are_ignored(kind: Any, message: Any) -> None:
    later = codec.decode(json.dumps(with_unknown_fields(message)), kind)
    # Free-form JSON keeps what it has; everything typed is the same.
    now = json.loads(codec.encode(codec.decode(json.dumps(message), kind)))
    assert strip(json.loads(codec.encode(later))) == strip(now)


def strip(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: strip(member) for name, member in value.items() if name not in ("unknown_field", "executable")}


@pytest.mark.parametrize("line", lines("notifications.jsonl"))
def test_notifications_and_their_states(line: dict[str, Any]) -> None:
    event = codec.decode(json.dumps(line["payload"]), Event)
    assert event.payload == line["payload"]["payload"]
    assert event.id == line["payload"].get("id")
    if event.kind == "backend_state":
        assert json.loads(codec.encode(state_from_json(json.dumps(event.payload)))) == event.payload


@pytest.mark.parametrize("line", [line for line in lines("http.jsonl") if line.get("path") == "/ctrl/connect"])
def test_recorded_connect_requests(line: dict[str, Any]) -> None:
    body = line.get("request_body")
    if line["status"] in (200, 409, 500) and isinstance(body, dict):
        request = codec.decode(json.dumps(body), ConnectRequest)
        encoded = json.loads(codec.encode(request))
        assert {name: encoded[name] for name in body if name not in ("key", "spawn_config")} == {
            name: value for name, value in body.items() if name not in ("key", "spawn_config")
        }
        assert codec.decode(codec.encode(request), ConnectRequest) == request
