"""Identifiers use the field's terms: those of docs/concepts/glossary.md, and none that was given up for them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "plane"
# Word: what to use instead. "Round trip" is the field's own.
RETIRED = {
    "answer": "response",
    "answers": "responses",
    "answered": "responded, received",
    "ask": "request, query",
    "asked": "requested",
    "asks": "requests",
    "deal": "choose",
    "doomed": "pending removal",
    "doubtful": "suspect",
    "entrance": "entry point",
    "entrances": "entry points",
    "hear": "receive",
    "heard": "received",
    "hearer": "message handler",
    "hears": "receives",
    "judge": "classify",
    "keeper": "what it does: renewer, reporter, supervisor",
    "lane": "fast path",
    "lately": "recently",
    "leftover": "orphan",
    "leftovers": "orphans",
    "lest": "so that not",
    "mend": "repair",
    "owed": "pending",
    "owes": "has pending",
    "question": "request, query",
    "questions": "requests, queries",
    "said": "sent, reported",
    "say": "send, report",
    "says": "sends, reports",
    "spool": "output capture",
    "standstill": "stall",
    "tell": "send, notify",
    "tells": "sends, notifies",
    "told": "sent, notified",
    "trip": "round trip",
    "trips": "round trips",
    "unsaid": "suppressed",
    "verdict": "classification",
    "whoever": "the caller",
    "why": "reason",
}
# Where the word is the field's own.
ALLOWED = {
    ("dns/zone.py", "question"): "the question section of a DNS message (RFC 1035)",
    ("dns/zone.py", "answer"): "the answer section of a DNS message (RFC 1035)",
    ("decisions/routing/rewrite.py", "question"): "the question mark before a query",
    ("proxy/certificates/acme_orders.py", "answer"): "a method of the ACME library",
    ("proxy/certificates/dns_propagation.py", "answer"): "the answer section of a DNS message (RFC 1035)",
    ("runtime/logs/files.py", "tell"): "a method of files",
}


def words(name: str) -> list[str]:
    """Return the words of an identifier, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def identifiers(path: Path) -> set[str]:
    """Return the names that a file defines or uses."""
    found = {path.stem}
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                found.add(name)
            case ast.keyword(arg=str(name)):
                found.add(name)
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_identifier_uses_a_retired_word(path: Path) -> None:
    name = str(path.relative_to(SOURCE))
    found = {
        f"{identifier}: use {RETIRED[word]}"
        for identifier in identifiers(path)
        for word in words(identifier)
        if word in RETIRED
        and (name, word) not in ALLOWED
        and not (word.startswith("trip") and "round" in words(identifier))
    }
    assert found == set()
