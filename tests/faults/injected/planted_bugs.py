"""Bugs that are planted into a program at its start: each replaces one function of the product.

A bug is planted when its module is imported, so that programs that do not use the module do not load it.
"""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.machinery
import itertools
import socket
import sys
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

__all__ = ["PLANTED", "plant"]

Patch = Callable[[Any], None]


def _watchdog_off(module: Any) -> None:
    """The watchdog never kills."""
    module.DeadlineTable.due = lambda *_: []


def _acknowledged_before_commit(module: Any) -> None:
    """A controller acknowledges a state a while before it stores it."""
    real = module.backends.record_states
    late: list[asyncio.Future[None]] = []

    async def acknowledge(db: Any, changes: Sequence[Any]) -> list[bool]:
        late.append(asyncio.ensure_future(store(db, changes)))
        return [True] * len(changes)

    async def store(db: Any, changes: Sequence[Any]) -> None:
        await asyncio.sleep(1.5)
        await real(db, changes)

    module.backends = SimpleNamespace(**{**vars(module.backends), "record_states": acknowledge})


def _route_kept(module: Any) -> None:
    """A proxy keeps the routes of revoked tokens."""
    module.RouteCache.revoke = lambda *_: None


def _event_dropped(module: Any) -> None:
    """Every other event is dropped, as if the inbox had been full."""
    real, count = module.EventBus._on_notification, itertools.count()
    module.EventBus._on_notification = lambda bus, *event: real(bus, *event) if next(count) % 2 else None


def _foreign_processes(module: Any) -> None:
    """A drone with a copy of another's store takes its backends for its own, and a controller lets it."""
    if module.__name__.endswith("registration"):
        module.may_register = lambda *_: True
        module.orders_are_void = lambda *_: False
    else:
        module.is_another_instance = lambda *_: False


def _forgetful_reaper(module: Any) -> None:
    """The reaper decides that a backend is to be terminated, and enqueues no action."""

    async def forget(*_: Any) -> None:
        return None

    module.terminate_backends = forget


def _port_given_twice(module: Any) -> None:
    """A drone gives away the first port on which nobody listens yet, and does not ask who answers there."""
    if not module.__name__.endswith("ports"):
        module.foreign_listener = lambda *_: None
        return

    def allocate(ports: Any) -> tuple[int, int]:
        free = next(port for port in itertools.count(ports._range.first) if not module._is_bound(port))
        ports._in_use[free] = lock = socket.socket(socket.AF_UNIX)
        return free, lock.fileno()

    module.Ports.allocate = allocate


def _replay_by_time(module: Any) -> None:
    """A drone sends unacknowledged events in the order of their times of day."""
    store, insert, read = module.StateStore, module.StateStore._insert_event, module.StateStore._unacknowledged
    store._insert_event = lambda own, backend, state, _: insert(
        own, backend, state, module.DroneTime(time.time_ns() // 1_000_000)
    )
    store._unacknowledged = lambda own: sorted(read(own), key=lambda event: event.timestamp.ms)


PLANTED: dict[str, tuple[Patch, tuple[str, ...]]] = {
    "watchdog off": (_watchdog_off, ("plane.decisions.backends.deadline_enforcement",)),
    "acknowledgement before the commit": (_acknowledged_before_commit, ("plane.controller.batched_statements",)),
    "route kept after its removal": (_route_kept, ("plane.decisions.routing.route_cache",)),
    "event dropped when an inbox is full": (_event_dropped, ("plane.database.event_bus",)),
    "adoption of a foreign process": (
        _foreign_processes,
        ("plane.decisions.drones.registration", "plane.decisions.drones.identity"),
    ),
    "port given twice": (_port_given_twice, ("plane.runtime.network.ports", "plane.runtime.process.runtime")),
    "replay by timestamp": (_replay_by_time, ("plane.drone.state_store",)),
    "reaper that forgets the action": (_forgetful_reaper, ("plane.controller.upkeep.reaper",)),
}


class _Finder(importlib.abc.MetaPathFinder):
    """Patches the modules of a bug right after they are executed."""

    def __init__(self, patch: Patch, modules: tuple[str, ...]) -> None:
        self._patch = patch
        self._modules = modules

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in self._modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_patch(module: Any) -> None:
            execute(module)
            self._patch(module)

        spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec


def plant(name: str) -> None:
    """Plant the bug with this name."""
    sys.meta_path.insert(0, _Finder(*PLANTED[name]))
