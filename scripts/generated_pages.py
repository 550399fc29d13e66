"""Pages of the documentation that are made from the program: a hook of MkDocs.

``reference/options.md`` from the command line, ``reference/http-api.md`` from the OpenAPI document.
"""

from __future__ import annotations

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from plane.cli.main import make_program
from plane.controller.api.openapi import describe
from plane.controller.app import all_endpoints

__all__ = ["http_api", "on_files", "options"]

_ADMONITION = "!!! note\n    This page is made from the program{}.\n\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for path, content in (("reference/options.md", options()), ("reference/http-api.md", http_api())):
        files.append(File.generated(config, path, content=content))
    return files


def options() -> str:
    """Return every command with its options."""
    text: str = make_program().generate_docs(output_format="markdown", recursive=True, include_hidden=False)
    _, _, body = text.partition("\n")
    return "# All options\n\n" + _ADMONITION.format(", as `plane COMMAND --help` prints it") + body


def http_api() -> str:
    """Return every endpoint and every object of the controller's HTTP API."""
    document = describe(all_endpoints())
    parts = ["# HTTP API\n", _ADMONITION.format("'s OpenAPI document, `GET /ctrl/openapi.json`")]
    parts.append("What the calls mean is on the page [Control API](protocol/control-api.md).\n")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(_operation(method.upper(), path, operation))
    parts.append("## Objects\n")
    parts += [_object(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "\n".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"## `{method} {path}`\n", f"{operation['summary']}. {operation.get('description', '')}\n"]
    if operation["parameters"]:
        lines += ["| parameter | in | type | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{each['name']}` | {each['in']} | {_type(each['schema'])} | {each.get('description', '')} |"
            for each in operation["parameters"]
        ]
        lines.append("")
    if "requestBody" in operation:
        lines.append(f"Body: {_content(operation['requestBody'])}.\n")
    lines += ["| status | body | meaning |", "| --- | --- | --- |"]
    lines += [
        f"| {status} | {_content(response)} | {response['description']} |"
        for status, response in operation["responses"].items()
    ]
    return "\n".join(lines) + "\n"


def _content(part: dict[str, Any]) -> str:
    return ", ".join(f"{media}: {_type(content['schema'])}" for media, content in part.get("content", {}).items())


def _object(name: str, schema: dict[str, Any]) -> str:
    lines = [f"### {name}\n", " ".join(schema.get("description", "").split()) + "\n"]
    if "enum" in schema:
        lines.append("One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".\n")
    if schema.get("properties"):
        required = schema.get("required", ())
        lines += ["| field | type | required |", "| --- | --- | --- |"]
        lines += [
            f"| `{field}` | {_type(kind)} | {'yes' if field in required else ''} |"
            for field, kind in schema["properties"].items()
        ]
    return "\n".join(lines) + "\n"


def _type(schema: dict[str, Any]) -> str:
    """Return a type in a few words, with links to objects."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema.get('items') or {})}"
        case "object":
            return "object"
        case str(kind):
            return kind
    return "any JSON"
