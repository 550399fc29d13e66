"""Exchanges recorded from a 0.5.5 controller, asked of ours: the same statuses, headers and shapes of bodies.

Left out: what issue and specification change on purpose (each with its reason in `CHANGED`), and what a session of its
own is needed for, which the integration tests cover.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.controllers import controller_api
from harness.fake_node import fake_drone

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "golden/http.jsonl").read_text().splitlines()]
# Note of the recording: what is different here, and why.
CHANGED = {
    "malformed cluster": 400,  # docs/reference/protocol/differences.md
    "id exists already": 409,  # Plane 0.5.5 responds with 500
    "not JSON": 400,  # the same status, but an ApiError
    "no JSON content type": 415,
    "missing executable": 422,
    "wrong type": 422,
    "missing field": 422,
    "path used by the original's own client": 200,  # Plane 0.5.5 responds with 404
}
NOTES = (
    "no key",
    "key not held, no spawn_config",
    "empty request",
    "no drone in that pool",
    "cluster name is not checked here",
    "missing executable",
    "wrong type",
    "not JSON",
    "no JSON content type",
    "wrong method",
    "unknown path",
    "unknown backend",
    "a name that could not exist",
    "CORS",
    "CORS preflight",
    "unknown cluster",
    "malformed cluster",
    "without upgrade",
    "nothing to revoke",
    "missing field",
    "path used by the original's own client",
    "unknown drone",
    "static token, subdomain, chosen id",
    "everything usual",
)
EXCHANGES = [
    line
    for line in RECORDED
    if (line.get("note") in NOTES and "status-stream" not in line["path"])
    or (line.get("path") in ("/pub/health", "/ctrl/status") and line.get("status") == 200 and "note" not in line)
]


def shape(value: Any) -> Any:
    """Names and types; values vary."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(member) for member in value[:1]]
    return type(value).__name__


@pytest.mark.parametrize("line", EXCHANGES, ids=lambda line: f"{line['method']} {line['path']} {line.get('note', '')}")
async def test_an_exchange_is_as_recorded(line: dict[str, Any], postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base, "dr-recorded"):
        body = line.get("request_body")
        arguments: dict[str, Any] = {"headers": line.get("request_headers", {})}
        if isinstance(body, str):
            arguments["data"] = body
        elif body is not None:
            arguments["json"] = body
        async with api.http.request(line["method"], api.base + line["path"], **arguments) as answer:
            text = await answer.text()
        assert answer.status == CHANGED.get(line.get("note", ""), line["status"])
        if answer.status != line["status"]:
            return
        json_here = answer.content_type == "application/json"
        for name, value in line["headers"].items():
            if not (name == "content-type" and json_here):
                assert answer.headers[name] == value, name
        if isinstance(line["body"], dict):
            here = json.loads(text)
            if "kind" in here:
                assert here["kind"] == line["body"]["kind"]
                # Ours may go on and say what to do.
                assert here["message"].startswith(line["body"]["message"])
            elif line["path"] != "/ctrl/status":
                assert shape(here) == shape(line["body"])
        elif not json_here:
            assert text == line["body"]
