"""Which ends of backends are failures."""

from __future__ import annotations

from typing import Any

import pytest

from plane.decisions.backends.failures import is_failure
from plane.protocol import codec
from plane.protocol.backend_state import Terminated


@pytest.mark.parametrize(
    ("fields", "failed"),
    [
        ({"reason": "swept", "exit_code": 137}, False),
        ({"reason": "external", "termination": "hard", "exit_code": 137}, False),
        ({"reason": "lost"}, True),
        ({"reason": "startuptimeout"}, True),
        ({"reason": "internalerror"}, True),
        ({"reason": "keyexpired"}, True),
        ({"exit_code": 0}, False),
        ({"exit_code": 1}, True),
        ({"termination": "soft", "exit_code": 1}, False),
        ({}, False),
    ],
)
def test_an_end_that_nobody_asked_for_is_a_failure(fields: dict[str, Any], failed: bool) -> None:
    assert is_failure(codec.convert({"status": "terminated", "last_status": "ready", **fields}, Terminated)) is failed
