"""Random names and tokens."""

from __future__ import annotations

import re

import pytest

from plane.protocol.names import Prefix, check_name
from plane.random_ids import random_name, random_static_token, random_token


@pytest.mark.parametrize("prefix", list(Prefix))
def test_random_names_are_valid(prefix: Prefix) -> None:
    name = random_name(prefix)
    assert check_name(name, prefix) == name
    assert re.fullmatch((f"{prefix}-" if prefix else "") + "[a-z0-9]{14}", name)


def test_random_tokens_have_their_form() -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", random_token())
    assert re.fullmatch(r"s\.[A-Za-z0-9_-]{43}", random_static_token())
