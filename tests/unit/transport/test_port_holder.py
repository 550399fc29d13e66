from __future__ import annotations

import os
import socket

from plane.transport.port_holder import listening_inodes, port_holder

TABLE = """\
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 101 1 0 100 0 0 10 0
   2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 102 1 0 100 0 0 10 0
   3: 0500000A:1F92 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 103 1 0 100 0 0 10 0
""".splitlines()
TABLE6 = """\
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 200 1
   1: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 201 1
   2: 0000000000000000FFFF00000100007F:1F92 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 202 1
""".splitlines()


def test_only_sockets_listening_on_the_address_hold_its_port() -> None:
    assert listening_inodes(TABLE, "127.0.0.1", 8080) == {"100"}
    assert listening_inodes(TABLE, "127.0.0.1", 8081) == {"102"}
    assert listening_inodes(TABLE, "127.0.0.1", 8082) == set()
    assert listening_inodes(TABLE6, "127.0.0.1", 8080) == {"200"}
    assert listening_inodes(TABLE6, "127.0.0.1", 8081) == set()
    assert listening_inodes(TABLE6, "::1", 8081) == {"201"}
    assert listening_inodes(TABLE6, "127.0.0.1", 8082) == {"202"}
    # A program that would listen on all addresses is prevented by each.
    assert listening_inodes(TABLE, "0.0.0.0", 8080) == {"100"}
    assert listening_inodes(TABLE, "::", 8082) == {"103"}


def test_this_process_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert str(port_holder("127.0.0.1", port)).endswith(f" (process {os.getpid()})")
    assert port_holder("127.0.0.1", port) is None
