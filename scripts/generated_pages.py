"""Pages of the documentation that are made from the program, and diagrams: a hook of MkDocs.

`reference/options.md` is made from the command line, `http-api.md` from the OpenAPI document, `run-config.md` from the
schema of the configuration files, and `metrics.md` from the sources that make the metrics. A diagram is shown as
`draw_diagrams.py` has drawn it, so that a reader's browser needs no script for it.
"""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import plane
from plane.cli.main import make_program
from plane.cli.run_config_file import RunConfig
from plane.cli.run_config_options import FIELD_OF_OPTION
from plane.controller.api.openapi import describe
from plane.controller.app import all_endpoints

__all__ = ["Metric", "http_api", "metrics", "metrics_page", "on_files", "on_page_markdown", "options", "run_config"]

# Factors of a page's place in the results of a search, by its folder or file.
_SEARCH_BOOSTS = {"decisions/": 0.2, "internals/": 0.2, "how-to/troubleshoot.md": 3}
_MADE_FROM = "This page is made from the program{}.\n\n"


# Before the plugin that lists pages for language models.
@event_priority(100)
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for path, content in (
        ("reference/options.md", options()),
        ("reference/http-api.md", http_api()),
        ("reference/run-config.md", run_config()),
        ("reference/metrics.md", metrics_page()),
    ):
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace each diagram's text by its drawing, and let the search show pages for developers last.

    Raises:
        PluginError: a diagram was changed, and not drawn.
    """
    for start, boost in _SEARCH_BOOSTS.items():
        if page.file.src_uri.startswith(start):
            page.meta["search"] = {"boost": boost}

    def drawing(found: re.Match[str]) -> str:
        name = hashlib.sha256(found[1].encode()).hexdigest()[:16]
        file = Path(config.docs_dir) / "assets" / "diagrams" / f"{name}.svg"
        if not file.exists():
            raise PluginError(f"{page.file.src_uri}: a diagram is not drawn; run: make diagrams")
        return f'<figure class="diagram">\n{file.read_text()}</figure>'

    return re.sub(r"^```mermaid\n(.*?)\n```$", drawing, markdown, flags=re.M | re.S)


def options() -> str:
    """Return every command with its options."""
    text: str = make_program().generate_docs(output_format="markdown", recursive=True, include_hidden=False)
    _, _, body = text.partition("\n")
    start = "# All options\n\nAfter this page you know each command, and what each of its options does.\n\n"
    return start + _MADE_FROM.format(", as `plane COMMAND --help` prints it") + body


def http_api() -> str:
    """Return every endpoint and every object of the controller's HTTP API."""
    document = describe(all_endpoints())
    parts = [
        "# HTTP API\n",
        "After this page you can call each endpoint of a controller.\n",
        _MADE_FROM.format("'s OpenAPI document, `GET /ctrl/openapi.json`"),
    ]
    parts.append("What the calls mean is on the page [Control API](protocol/control-api.md).\n")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(_operation(method.upper(), path, operation))
    parts.append("## Objects\n")
    parts += [_object(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "\n".join(parts)


@dataclass(frozen=True)
class Metric:
    """A metric of a part, as Prometheus reads it.

    Attributes:
        part: the package of the program that gives it.
        name: with the ending that its kind has in a scrape.
        kind: "counter", "gauge" or "histogram".
        text: what it is.
        labels: names of its labels.
    """

    part: str
    name: str
    kind: str
    text: str
    labels: tuple[str, ...]


def metrics() -> list[Metric]:
    """Return all metrics of all parts, from the calls in the program's sources that make them."""
    package = Path(plane.__file__).parent
    found = []
    for file in sorted(package.rglob("*.py")):
        part = file.relative_to(package).parts[0]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                kind, is_family, _ = node.func.id.partition("MetricFamily")
                if is_family:
                    found.append(_metric(part, kind.lower(), node))
    return sorted(found, key=lambda metric: (metric.part, metric.name))


def _metric(part: str, kind: str, call: ast.Call) -> Metric:
    name, text = (ast.literal_eval(argument) for argument in call.args)
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    labels = ast.literal_eval(named["labels"]) if "labels" in named else ()
    return Metric(part, f"{name}_total" if kind == "counter" else name, kind, text, tuple(labels))


def metrics_page() -> str:
    """Return every metric of every part."""
    parts = ["# Metrics\n", "After this page you know each metric of each part.\n", _MADE_FROM.format("'s sources")]
    parts.append("[Monitor](../how-to/monitor.md) says how to scrape them, and what to alert on.\n")
    all_of_them = metrics()
    for part, title in (("controller", "Controller"), ("drone", "Drone"), ("proxy", "Proxy"), ("dns", "DNS server")):
        parts += [f"## {title}\n", "| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
        parts += [
            f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.text} |"
            for each in all_of_them
            if each.part == part
        ]
        parts.append("")
    return "\n".join(parts)


def run_config() -> str:
    """Return every field of the files of `plane run-config`."""
    objects = msgspec.json.schema(RunConfig)["$defs"]
    parts = ["# Configuration files\n", "After this page you can write a file for `plane run-config`.\n"]
    parts.append(_MADE_FROM.format("'s schema, `plane run-config --schema`"))
    parts.append("A file has one of these fields, which says what runs. Examples are in `deploy/etc`.\n")
    components = {
        name: schema["$ref"].rpartition("/")[2] for name, schema in objects["RunConfig"]["properties"].items()
    }
    parts += ["| field | object |", "| --- | --- |"]
    parts += [f"| `{name}` | [{target}](#{target.lower()}) |" for name, target in components.items()]
    parts.append("")
    options = _options_of_fields(objects, components)
    for name, schema in objects.items():
        if name != "RunConfig":
            parts.append(_config_object(name, schema, options))
    return "\n".join(parts)


def _options_of_fields(objects: dict[str, Any], components: dict[str, str]) -> dict[tuple[str, str], list[str]]:
    """Return the options that mean the same as each field of each object."""
    found: dict[tuple[str, str], list[str]] = {}
    for component, field_of_option in FIELD_OF_OPTION.items():
        for option, path in field_of_option.items():
            *outer, field = path.split(".")
            name = components[component]
            for each in outer:
                kind = objects[name]["properties"][each]
                name = next(one["$ref"] for one in kind.get("anyOf", [kind]) if "$ref" in one).rpartition("/")[2]
            # A field that several objects have, where none is named.
            own = field in objects[name]["properties"]
            holders = [name] if own else [each for each in objects if field in objects[each].get("properties", ())]
            for holder in holders:
                options = found.setdefault((holder, field), [])
                if option not in options:
                    options.append(option)
    return found


def _config_object(name: str, schema: dict[str, Any], options: dict[tuple[str, str], list[str]]) -> str:
    description = " ".join(schema.get("description", "").replace("``", "`").split())
    lines = [f"## {name}\n", description + "\n"]
    lines += ["| field | type | default | option |", "| --- | --- | --- | --- |"]
    for field, kind in schema["properties"].items():
        default = "required" if field in schema.get("required", ()) else _default(kind)
        same = ", ".join(f"`{option}`" for option in options.get((name, field), ()))
        lines.append(f"| `{field}` | {_type(kind).removesuffix(' or null')} | {default} | {same} |")
    return "\n".join(lines) + "\n"


def _default(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    return "" if default is None else f"`{msgspec.json.encode(default).decode()}`"


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
