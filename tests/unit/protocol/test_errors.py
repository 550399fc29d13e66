"""All exceptions of the package form the tree in the docstring of `plane.protocol.errors`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import plane
from plane.protocol import errors
from plane.protocol.errors import PlaneError


def exceptions() -> set[type[BaseException]]:
    """Return every exception that a module of the package defines."""
    found = set()
    for module in pkgutil.walk_packages(plane.__path__, "plane."):
        for _, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(member, BaseException) and member.__module__ == module.name:
                found.add(member)
    return found


def documented() -> dict[str, str]:
    """Return the parent of each error of the documented tree, by name."""
    tree = inspect.cleandoc(errors.__doc__ or "").partition("::")[2]
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in inspect.cleandoc(tree).splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        path[depth:] = [line.strip()]
        if depth:
            parents[line.strip()] = path[depth - 1]
    return parents


def test_every_exception_derives_from_the_root() -> None:
    assert [kind for kind in exceptions() if not issubclass(kind, PlaneError)] == []


def test_tree_in_the_documentation_is_complete() -> None:
    actual = {
        kind.__name__: kind.__bases__[0].__name__
        for kind in exceptions()
        if kind is not PlaneError and not kind.__name__.startswith("_")
    }
    assert documented() == actual
