"""Start the relays to backends that have a network namespace of their own, and manage those of containers.

The relay itself is a program, `plane.runtime.network.relay_program`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from plane.protocol import codec
from plane.protocol.errors import MessageError
from plane.runtime.base import BackendFailed
from plane.runtime.network import relay_program
from plane.runtime.network.ports import Ports, listening_socket
from plane.runtime.process.child_process import ChildProcess
from plane.tasks import OwnedTasks

__all__ = ["ContainerRelays", "start_relay"]

RELAY = (sys.executable, "-I", "-S", relay_program.__file__)

log = structlog.get_logger("plane.runtime")


def start_relay(
    listener: int, port: int, pid: int, started_at: int, env: Mapping[str, str], held: Sequence[int] = ()
) -> ChildProcess:
    """Start a relay from a listening socket to a port in the network namespace of a process, or of its first child.

    The relay ends with the process.

    Args:
        started_at: the process's start time, see `plane.runtime.process.procfs.start_time`.
        held: other descriptors that stay open as long as the relay runs.

    Raises:
        OSError: the relay cannot be started.
    """
    output = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        return ChildProcess.start(
            [*RELAY, *map(str, (listener, port, pid, started_at))],
            env=env,
            output=output,
            inherited=[listener, *held],
            cwd="/",
        )
    finally:
        os.close(output)


class RelayHandle(msgspec.Struct, frozen=True):
    """What the drone stores of a container's relay: its process id and start time, and the port that it listens on."""

    pid: int
    started_at: int
    port: int


class ContainerRelays:
    """The relays of one drone's containers without a network, and the ports of the machine that lead to them.

    Args:
        ip: the address where they listen; None: all addresses.
        on_lost: called with the id of a running backend whose relay has ended, so that it can no longer be reached.
    """

    def __init__(self, ports: Ports, ip: str | None, on_lost: Callable[[str], Awaitable[None]]) -> None:
        self._ports = ports
        self._ip = ip
        self._on_lost = on_lost
        # The relay and port of each running container.
        self._relays: dict[str, tuple[ChildProcess, int]] = {}
        self._tasks = OwnedTasks(lambda error: log.error("task of a network relay failed", exc_info=error))

    def start(self, backend_id: str, container_port: int, pid: int, started_at: int) -> int:
        """Forward a port of the machine to a port of a container. Return the machine's port.

        Args:
            pid: the container's first process.
            started_at: that process's start time.

        Raises:
            BackendFailed: no port is free, or the relay cannot be started.
        """
        try:
            port, held = self._ports.allocate()
        except OSError as error:
            raise BackendFailed(f"no port can be allocated: {error}") from error
        try:
            listener = listening_socket(self._ip, port)
            try:
                env = {"PATH": os.environ.get("PATH", os.defpath), "SESSION_BACKEND_ID": backend_id}
                relay = start_relay(listener, container_port, pid, started_at, env, [held])
            finally:
                os.close(listener)
        except OSError as error:
            self._ports.release(port)
            raise BackendFailed(f"executable.network: the network relay cannot be started: {error}") from error
        self._watch(backend_id, relay, port)
        return port

    def handle(self, backend_id: str) -> Any:
        """Return what `adopt` needs; None if the backend has no relay."""
        if backend_id not in self._relays:
            return None
        relay, port = self._relays[backend_id]
        return codec.to_builtins(RelayHandle(relay.pid, relay.started_at, port))

    def adopt(self, backend_id: str, handle: Any) -> bool:
        """Take over the relay of a former process of this drone. Return False if the backend's relay has ended."""
        if handle is None:
            return True
        try:
            known = codec.convert(handle, RelayHandle)
        except MessageError:
            return False
        self._ports.adopt(known.port)
        relay = ChildProcess.adopt(known.pid, known.started_at, None)
        if relay is None:
            self._ports.release(known.port)
            return False
        self._watch(backend_id, relay, known.port)
        return True

    def ended(self, backend_id: str) -> None:
        """Quarantine the port of an ended container. Its relay ends by itself."""
        if known := self._relays.pop(backend_id, None):
            self._ports.release(known[1])

    def expire_ports(self) -> None:
        """Free the ports whose quarantine has passed. Called every few seconds."""
        self._ports.expire()

    async def close(self) -> None:
        """Stop watching the relays, which end with their containers."""
        await self._tasks.end()
        self._ports.close()

    def _watch(self, backend_id: str, relay: ChildProcess, port: int) -> None:
        self._relays[backend_id] = relay, port
        self._tasks.start(self._watch_exit(backend_id, relay))

    async def _watch_exit(self, backend_id: str, relay: ChildProcess) -> None:
        try:
            await relay.wait()
        finally:
            relay.detach()
        if backend_id in self._relays:
            await self._on_lost(backend_id)
