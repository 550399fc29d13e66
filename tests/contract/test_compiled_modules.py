"""What is compiled (decision 0023) has constants that mypyc can take for constants."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src/plane"
MODULES = [
    path
    for each in ("decisions/http", "decisions/routing", "proxy/data_plane")
    for path in (SOURCES / each).glob("*.py")
]


@pytest.mark.parametrize("module", sorted(str(path.relative_to(SOURCES)) for path in MODULES))
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
