from __future__ import annotations

import os
import socket

import pytest

from plane.transport.port_errors import port_error


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
def test_an_error_names_the_program_that_listens_and_the_option(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        family = socket.AF_INET6 if host == "::" else socket.AF_INET
        with socket.socket(family) as other, pytest.raises(OSError) as caught:  # noqa: PT011 - its text is tested
            other.bind((host, port))
        text = str(port_error(caught.value, host, port, "--metrics-port"))
    assert text.startswith(f"port {port} on {host} is in use by ")
    assert text.endswith(f" (process {os.getpid()}); choose another with --metrics-port")


def test_a_port_that_needs_a_privilege() -> None:
    text = str(port_error(PermissionError(13, "Permission denied"), "0.0.0.0", 80, "--http-port"))
    assert text == "port 80 on 0.0.0.0 requires root (or CAP_NET_BIND_SERVICE); choose another with --http-port"
