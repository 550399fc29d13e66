"""In which format a client gets an error."""

from __future__ import annotations

import pytest

from plane.decisions.http.error_format import ErrorFormat, error_format, is_navigation


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (b"text/html,*/*;q=0.8", ErrorFormat.PAGE),
        (b"application/json, TEXT/HTML;q=0.5", ErrorFormat.PAGE),
        (b"text/html;q=0", ErrorFormat.JSON),
        (b"text/html;q=0.000, */*", ErrorFormat.JSON),
        (b"*/*", ErrorFormat.JSON),
        (b"application/json", ErrorFormat.JSON),
    ],
)
def test_only_a_client_that_accepts_html_gets_a_page(accept: bytes, form: ErrorFormat) -> None:
    lines = b"\r\nCookie: text/html\r\naccept: " + accept + b"\r\nX: y"
    assert error_format(lines) is form
    assert is_navigation(b"GET", lines) is (form is ErrorFormat.PAGE)
    assert not is_navigation(b"POST", lines)
