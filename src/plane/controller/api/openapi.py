"""Describes the HTTP API as an OpenAPI 3.1 document, generated from the endpoints and their types alone.

Served at ``/ctrl/openapi.json``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from plane.controller.api.endpoints import JSON, Endpoint, Parameter
from plane.protocol.codec import Variants
from plane.protocol.errors import ApiError
from plane.protocol.times import Instant
from plane.version import this_version

__all__ = ["describe"]

_REF = "#/components/schemas/{name}"
# Statuses of every endpoint: malformed requests, unexpected errors, and an unavailable database.
_ALWAYS = (400, 500, 503)
_WITH_ROLE = (401, 403)
_WITH_BODY = (408, 413, 415, 422)
_MEANING = {
    400: "The request is malformed; the message names the field",
    401: "No valid API key, or refused by forward auth",
    403: "The API key's role does not allow this, or a web page of another origin sent it",
    404: "There is no such backend, drone or webhook",
    408: "The body did not arrive in time",
    409: "The key is held, or not held, or the id is taken; the kind says which",
    410: "Events after the cursor were deleted, or the cursor is of another feed; the body has one to continue with",
    413: "The body is too large",
    415: "The body is not declared as JSON",
    422: "The body does not have the required shape; the message names the field",
    500: "No drone is available, or an internal error; the kind says which",
    502: "The drone's response is invalid",
    503: "The database is unavailable or has just failed over, or too many large bodies are in transfer; retry",
    504: "The drone did not respond in time",
}


def describe(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the document."""
    types = [kind for e in endpoints for kind in (e.body, e.response) if kind is not None]
    kinds = list(dict.fromkeys([ApiError, *types]))
    schemas, components = msgspec.json.schema_components(kinds, schema_hook=_schema_of, ref_template=_REF)
    for kind in _structs(kinds):
        if issubclass(kind, Variants):
            components[kind.__name__] |= {"minProperties": 1, "maxProperties": 1}
    schema_of = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        for number, path in enumerate(endpoint.paths):
            operation = _operation(endpoint, path, schema_of)
            if number:
                operation["operationId"] += f"_{number}"
            paths.setdefault(path, {})[endpoint.method.lower()] = operation
    version = this_version()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Plane controller",
            "version": version.version,
            "description": "The control API (`/ctrl`) and the public API (`/pub`) of a Plane controller. "
            "Unknown fields of a body are ignored.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, path: str, schema_of: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}").strip("_"),
        "summary": endpoint.summary,
        "parameters": [*map(_path_parameter, re.findall(r"{(\w+)}", path)), *map(_parameter, endpoint.parameters)],
        "responses": _responses(endpoint, schema_of),
    }
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema_of[endpoint.body]}}}
    if endpoint.role is not None:
        operation["security"] = [{"apiKey": []}]
        operation["description"] = f"Needs an API key of role `{endpoint.role}` where the controller has keys."
    return operation


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = msgspec.json.schema(parameter.kind)
    return {"name": parameter.name, "in": parameter.place, "description": parameter.meaning, "schema": schema}


def _responses(endpoint: Endpoint, schema_of: dict[Any, Any]) -> dict[str, Any]:
    statuses = {*_ALWAYS, *endpoint.refusals}
    if endpoint.role is not None:
        statuses |= set(_WITH_ROLE)
    if endpoint.body is not None:
        statuses |= set(_WITH_BODY)
    responses = {str(s): _response(_MEANING[s], JSON, schema_of[ApiError]) for s in sorted(statuses)}
    if endpoint.role is not None:
        # Refusals by forward auth are plain text, like in Plane 0.5.5.
        responses["401"]["content"]["text/plain"] = {"schema": {"type": "string"}}
        responses.setdefault("502", {"description": "The forward-auth server did not respond", "content": {}})
        responses["502"]["content"]["text/plain"] = {"schema": {"type": "string"}}
    if endpoint.is_socket:
        done = {"101": {"description": "A WebSocket of JSON messages"}}
    else:
        schema = schema_of.get(endpoint.response, {"type": "null"}) if endpoint.media == JSON else {"type": "string"}
        done = {"200": _response("Done", endpoint.media, schema)}
    return done | responses


def _response(description: str, media: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {media: {"schema": schema}}}


def _schema_of(kind: type) -> dict[str, Any]:
    """Describe the types that msgspec does not know; its schema hook."""
    if issubclass(kind, Instant):
        return {"type": "integer", "description": "Milliseconds since the Unix epoch"}
    raise NotImplementedError(f"{kind.__name__} has no schema")


def _structs(kinds: Sequence[Any]) -> set[type]:
    """Return every struct within the types."""
    found: set[type] = set()

    def visit(info: Any) -> None:
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                return
            found.add(info.cls)
            for field in info.fields:
                visit(field.type)
        for name in ("types", "item_types"):
            for part in getattr(info, name, ()):
                visit(part)
        for name in ("item_type", "value_type", "key_type"):
            if (part := getattr(info, name, None)) is not None:
                visit(part)

    for kind in kinds:
        visit(msgspec.inspect.type_info(kind))
    return found
