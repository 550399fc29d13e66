"""Spans as the roles see them. A role that holds no `Tracer` makes none, and needs no OpenTelemetry.

A span that is not sampled is None, and so are the spans below it: a request that is not traced costs one test for None
per step. Spans are passed as values; there are no context variables.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from plane.protocol.errors import PlaneError

__all__ = ["Kind", "Span", "Tracer", "child", "failure_text"]


class Kind(enum.Enum):
    """What a span measures: a request that is served, a request that is sent, or a step."""

    SERVER = enum.auto()
    CLIENT = enum.auto()
    INTERNAL = enum.auto()


class Span(Protocol):
    """A step of a trace that is in progress."""

    @property
    def traceparent(self) -> str:
        """The span as a parent of others, for another process."""

    def child(self, name: str, kind: Kind = Kind.INTERNAL) -> Span | None:
        """Begin a span below this one."""

    def set(self, name: str, value: str | int | bool) -> None:
        """Add an attribute. Tokens, keys of the API and data of users must not be in one."""

    def fail(self, reason: str) -> None:
        """Mark the step as failed."""

    def end(self) -> None:
        """End it. Later calls have no effect."""


class Tracer(Protocol):
    """Begins the spans of one role."""

    def start(self, name: str, kind: Kind, traceparent: str | None) -> Span | None:
        """Begin a span. A ``traceparent`` that is absent or malformed begins a new trace."""


def failure_text(error: BaseException) -> str:
    """Return why a step failed. Texts of other programs' errors may have arguments, and so secrets."""
    return str(error) if isinstance(error, PlaneError) else type(error).__name__


@contextmanager
def child(parent: Span | None, name: str, kind: Kind = Kind.INTERNAL) -> Iterator[Span | None]:
    """Measure the block as a step below ``parent``, if there is one. An exception marks it as failed."""
    span = None if parent is None else parent.child(name, kind)
    if span is None:
        yield None
        return
    try:
        yield span
    except BaseException as error:
        span.fail(failure_text(error))
        raise
    finally:
        span.end()
