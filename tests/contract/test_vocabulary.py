"""Identifiers and prose use the terms of docs/concepts/glossary.md, and none that was given up for them."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "plane"
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

# In comments, docstrings, decisions and pages for developers. Phrase: what to write instead.
RETIRED_PHRASES = {
    r"answer(?:s|ed)?": "response, respond",
    r"anew": "again, new",
    r"be it": "whether",
    r"(?:has|have|had) come": "has arrived",
    r"dearer": "more expensive",
    r"for good": "permanently",
    r"gets? on|getting on": "progresses",
    r"goes on|go on|went on": "continues",
    r"hears?|heard": "receives, received",
    r"(?:is|are|was|were) no (?:part|error|page|event|request|attribute|longer one|type)": "is not a",
    r"(?:is|are|was|were) over": "has ended, has expired",
    r"lately": "recently",
    r"leads? nowhere": "has no route",
    r"lest": "so that not",
    r"likewise": "in the same way",
    r"look-ups?": "lookup",
    r"mend(?:s|ed|ing)?": "repair",
    r"none of it": "nothing",
    r"said|unsaid": "sent, reported",
    r"seldom": "rarely",
    r"stands? still": "stalls",
    r"told|tells? (?:the|a|it|them|him|apart)": "sends, notifies; distinguishes",
    r"(?<!round )(?<!round-)trips?": "round trip",
    r"whoever|whatever is": "the caller; everything that is",
}
PHRASES = re.compile("|".join(rf"(?P<p{place}>\b(?:{each})\b)" for place, each in enumerate(RETIRED_PHRASES)), re.I)
# The four kinds of code have their names since the beginning.
ALLOWED_PHRASES = {
    ("docs/internals/architecture.md", "said"),
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


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of comments and docstrings of a module, or of a page without its code."""
    text = path.read_text()
    if path.suffix == ".md":
        without_code = re.sub(r"```.*?```", lambda block: "\n" * block[0].count("\n"), text, flags=re.S)
        for number, line in enumerate(without_code.splitlines(), 1):
            yield number, re.sub(r"`[^`]*`", "", line)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for line in (ast.get_docstring(node) or "").splitlines():
                yield getattr(node, "lineno", 1), re.sub(r"``.*?``", "", line)


PAGES = [*(ROOT / "docs" / "decisions").glob("*.md"), *(ROOT / "docs" / "internals").glob("*.md")]


@pytest.mark.parametrize("path", sorted([*SOURCE.rglob("*.py"), *PAGES]), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_prose_uses_a_retired_phrase(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    instead = list(RETIRED_PHRASES.values())
    found = [
        f"line {number}: {match[0]!r}: write {instead[int(match.lastgroup[1:])]}"
        for number, line in prose(path)
        for match in PHRASES.finditer(line)
        if match.lastgroup and (name, match[0].lower()) not in ALLOWED_PHRASES
    ]
    assert found == []
