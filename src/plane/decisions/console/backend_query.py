"""Which backends a page of the console lists: parses its address, and makes the address of the next page.

Pages continue after the last row (status time and id) and not at a number, so that backends that change meanwhile
neither repeat nor skip others. Called by `plane.controller.console.backend_pages`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from plane.protocol.backend_state import BackendStatus
from plane.protocol.errors import ApiErrorKind, ApiFailure

__all__ = ["ALL", "LIVE", "MAX_WATCHED", "PAGE_ROWS", "BackendQuery", "parse_query", "parse_watched"]

PAGE_ROWS = 50
LIVE, ALL = "live", "all"
# The rows of one page, whose states its stream follows.
MAX_WATCHED = 100
MAX_TEXT = 256

_CURSOR = re.compile(r"(?P<since_us>[0-9]{1,17})-(?P<id>[A-Za-z0-9_-]{1,255})")
_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendQuery:
    """One page of backends, the latest change first.

    Attributes:
        status: a status, `LIVE` for all but terminated, or `ALL`.
        search: part of a key's name, or the beginning of a backend's id. Empty: any.
        cluster, drone: their whole names. Empty: any.
        after: status time (microseconds since 1970) and id of the row before the page. None: the first page.
    """

    status: str = LIVE
    search: str = ""
    cluster: str = ""
    drone: str = ""
    after: tuple[int, str] | None = None

    @property
    def is_filtered(self) -> bool:
        """Whether some live backends may be missing."""
        return self != BackendQuery(after=self.after)

    def address(self) -> str:
        """Return the path and query of this page."""
        given = {"q": self.search, "status": "" if self.status == LIVE else self.status}
        given |= {"cluster": self.cluster, "drone": self.drone}
        given["after"] = "" if self.after is None else f"{self.after[0]}-{self.after[1]}"
        query = urlencode({name: value for name, value in given.items() if value})
        return f"/console/backends?{query}" if query else "/console/backends"

    def next_page(self, since_us: int, backend_id: str) -> BackendQuery:
        """Return the page after the row with this status time and id."""
        return replace(self, after=(since_us, backend_id))

    def first_page(self) -> BackendQuery:
        """Return the first page of the same filters."""
        return replace(self, after=None)


def parse_query(parameters: Mapping[str, str]) -> BackendQuery:
    """Return the page that the query parameters name.

    Raises:
        ApiFailure: 400, names the parameter.
    """
    status = parameters.get("status") or LIVE
    if status not in (LIVE, ALL, *BackendStatus):
        raise _bad("status", f"must be {LIVE}, {ALL} or one of {', '.join(BackendStatus)}")
    after = None
    if text := parameters.get("after"):
        cursor = _CURSOR.fullmatch(text)
        if cursor is None:
            raise _bad("after", "is not from a link of this page; start at its first page")
        after = int(cursor["since_us"]), cursor["id"]
    return BackendQuery(
        status=status,
        search=_text(parameters, "q").strip(),
        cluster=_text(parameters, "cluster"),
        drone=_text(parameters, "drone"),
        after=after,
    )


def parse_watched(text: str) -> list[str]:
    """Return the ids of backends in a comma-separated list.

    Raises:
        ApiFailure: 400.
    """
    ids = list(dict.fromkeys(text.split(","))) if text else []
    if len(ids) > MAX_WATCHED or not all(map(_ID.fullmatch, ids)):
        raise _bad("ids", f"must be at most {MAX_WATCHED} ids of backends")
    return ids


def _text(parameters: Mapping[str, str], name: str) -> str:
    value = parameters.get(name, "")
    if "\0" in value or len(value) > MAX_TEXT or not value.isprintable():
        raise _bad(name, f"must be at most {MAX_TEXT} printable characters")
    return value


def _bad(name: str, reason: str) -> ApiFailure:
    return ApiFailure(400, ApiErrorKind.OTHER, f"query parameter {name}: {reason}")
