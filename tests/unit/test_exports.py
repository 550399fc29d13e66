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


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_exception_is_made_once_and_raised_for_ever(module: ModuleType) -> None:
    """Its traceback would grow each time, and keep alive what the frames hold."""
    assert [name for name, value in vars(module).items() if isinstance(value, BaseException)] == []
