"""What a peer has not taken is seen, in our buffer and in the kernel's; what is gone has nothing."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, cast

import pytest

from plane.proxy.data_plane.send_queue import unsent_bytes


class Transport:
    """As much of one as is looked at."""

    def __init__(self, peer: Any, buffered: int) -> None:
        self._peer = peer
        self._buffered = buffered

    def get_extra_info(self, name: str) -> Any:
        assert name == "socket"
        return self._peer

    def get_write_buffer_size(self) -> int:
        return self._buffered


@pytest.fixture
def pair() -> Any:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
        other, _ = server.accept()
        with other:
            yield one, other


def test_both_buffers_count_until_the_peer_has_read(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.setblocking(False)
    transport = cast("Any", Transport(one, 5))
    assert unsent_bytes(transport) == 5
    with suppress(BlockingIOError):
        while True:
            one.send(bytes(65536))
    full = unsent_bytes(transport)
    assert full > 65536
    while unsent_bytes(transport) == full:
        assert other.recv(65536)


def test_what_is_gone_has_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    one, _ = pair
    one.close()
    assert unsent_bytes(cast("Any", Transport(one, 0))) == 0
    assert unsent_bytes(cast("Any", Transport(None, 7))) == 7
    assert unsent_bytes(None) == 0
