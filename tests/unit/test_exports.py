"""Every module says what it offers, and offers what it says."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest

import plane

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(plane.__path__, "plane.")
    if not module.ispkg
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_there_and_sorted_out(module: ModuleType) -> None:
    assert module.__doc__, "the first lines of a file say what it alone decides or owns"
    offered = module.__all__
    assert len(set(offered)) == len(offered)
    assert [name for name in offered if not hasattr(module, name)] == []
