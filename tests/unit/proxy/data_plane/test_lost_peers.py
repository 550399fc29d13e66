"""The kernel ends a connection whose peer does not take what is sent; one that is quiet stays."""

from __future__ import annotations

import errno
import select
import socket
from contextlib import suppress

from plane.proxy.data_plane.lost_peers import notice_lost_peer

LIMIT_MS = 10_000


def test_a_connection_whose_peer_does_not_read_is_ended_by_the_kernel() -> None:
    with socket.socket() as server:
        notice_lost_peer(server, 0.4)
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname()) as stuck:
            # The accepted connection inherits the limit.
            accepted, _ = server.accept()
            with accepted:
                accepted.setblocking(False)
                with suppress(BlockingIOError):
                    while True:
                        accepted.send(bytes(65536))
                poll = select.poll()
                poll.register(accepted, 0)
                assert poll.poll(LIMIT_MS)
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT
            del stuck
