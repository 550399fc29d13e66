"""What is compiled (decision 0023) has constants that mypyc can take for constants."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from harness.compiled import compiled_sources

SOURCES = Path(__file__).parents[2] / "src/plane"


@pytest.mark.parametrize("module", [str(path) for path in compiled_sources()])
def test_constants_are_final(module: str) -> None:
    """Others are looked up by name at each use, which takes longer than in the interpreter."""
    names = [
        target.id
        for statement in ast.parse((SOURCES / module).read_text()).body
        if isinstance(statement, ast.Assign)
        for target in ast.walk(statement)
        if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)
    ]
    # Type variables have one letter.
    assert [name for name in names if name.isupper() and len(name) > 1] == []
