"""The relay to a backend's network, between sockets of one namespace."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from plane.runtime.network.relay_program import Relay

LIMIT_S = 20.0


class World:
    """A relay that runs, what listens behind it, and clients of it."""

    def __init__(self, listener: socket.socket, behind: socket.socket) -> None:
        self._address = listener.getsockname()
        self.behind = behind
        behind.settimeout(LIMIT_S)

    def connected(self) -> tuple[socket.socket, socket.socket]:
        """A client, and the connection that the relay has made for it."""
        client = self.client()
        inside, _ = self.behind.accept()
        inside.settimeout(LIMIT_S)
        return client, inside

    def client(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=LIMIT_S)


@pytest.fixture(params=["127.0.0.1", "::1"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server((request.param, 0), family=family) as behind,
        subprocess.Popen(["sleep", "600"]) as supervisor,
    ):
        pidfd = os.pidfd_open(supervisor.pid)
        thread = threading.Thread(target=Relay(listener, behind.getsockname()[1], pidfd).run)
        thread.start()
        try:
            yield World(listener, behind)
        finally:
            supervisor.kill()
            thread.join(LIMIT_S)
            os.close(pidfd)
            assert not thread.is_alive()


def test_each_direction_of_a_connection_ends_by_itself(world: World) -> None:
    client, inside = world.connected()
    with client, inside:
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        assert inside.makefile("rb").read() == b"request"
        inside.sendall(b"response")
        assert client.recv(100) == b"response"
        inside.close()
        assert client.recv(100) == b""


def test_a_connection_that_is_reset_is_reset_on_the_other_side(world: World) -> None:
    client, inside = world.connected()
    with client, inside:
        inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        inside.close()
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_a_side_that_does_not_read_pauses_only_its_own_connection(world: World) -> None:
    client, inside = world.connected()
    with client, inside:
        inside.setblocking(False)
        sent = 0
        # It takes what the buffers of the kernel take.
        while select.select([], [inside], [], 1.0)[1]:
            sent += inside.send(bytes(65536))
        assert sent < 64 * 1024 * 1024
        other, other_inside = world.connected()
        with other, other_inside:
            other.sendall(b"ping")
            assert other_inside.recv(100) == b"ping"
        inside.setblocking(True)
        inside.close()
        got = 0
        while data := client.recv(1 << 20):
            got += len(data)
        assert got == sent


def test_a_connection_without_a_listener_is_reset(world: World) -> None:
    world.behind.close()
    with pytest.raises(ConnectionResetError), world.client() as client:
        client.recv(100)
