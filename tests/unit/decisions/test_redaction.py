"""What is taken out of a text before it is logged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.redaction import redacted

TOKEN = "ziPg0iHFz9jjNHhiH1ih1FOPbTLIq5GVmy1e3fcCFRc"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgresql://plane:pass-word@db:5432/plane", "postgresql://…@db:5432/plane"),
        ("postgresql://db/plane?user=a&password=pass-word&x=1", "postgresql://db/plane?user=a&password=…&x=1"),
        ("host=db password=pass-word dbname=x", "host=db password=… dbname=x"),
        ("no answer at https://KEY@controller.example/ctrl", "no answer at https://…@controller.example/ctrl"),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': 'Bearer …'}"),
        (f"the key pk_{TOKEN} is none", "the key pk_… is none"),
        (f"GET /{TOKEN}/a?b", "GET /…/a?b"),
        (f"http://host:9090/s.{TOKEN}/", "http://host:9090/s.…/"),
        (
            'null value in column "x"\nDETAIL:  Failing row contains (a, b).\nHINT: c',
            'null value in column "x"\nDETAIL: …\nHINT: c',
        ),
        ("invalid input for query argument $2: {'a': 1} (expected str)", "invalid input for query argument $2: …"),
        ("exited with code 1; its last output:\nSECRET=1\nmore", "exited with code 1"),
        ("postgresql://USERS@db/plane", "postgresql://…@db/plane"),
        # Left alone.
        ("as postgresql://USER@HOST:PORT/NAME", "as postgresql://USER@HOST:PORT/NAME"),
        ('password authentication failed for user "plane"', 'password authentication failed for user "plane"'),
        (
            "controller co-0123456789abcd at http://10.0.0.1:8080",
            "controller co-0123456789abcd at http://10.0.0.1:8080",
        ),
        ("sha256:" + "0" * 64, "sha256:" + "0" * 64),
    ],
)
def test_secrets_go_and_the_rest_stays(text: str, left: str) -> None:
    assert redacted(text) == left


@given(before=st.text(), after=st.text())
def test_a_token_goes_wherever_it_stands_alone(before: str, after: str) -> None:
    assert TOKEN not in redacted(f"{before}/{TOKEN} {after}")


@given(st.text())
def test_what_was_redacted_stays_as_it_is(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)
