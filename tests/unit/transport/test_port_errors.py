from __future__ import annotations

import errno
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


@pytest.mark.parametrize(
    ("number", "host", "text"),
    [
        (
            errno.EACCES,
            "0.0.0.0",
            "port 80 on 0.0.0.0 requires root (or CAP_NET_BIND_SERVICE); choose another with --port",
        ),
        (errno.EADDRNOTAVAIL, "192.0.2.1", "port 80 on 192.0.2.1 cannot be used: it is not an address of this machine"),
    ],
)
def test_other_errors_say_what_is_missing(number: int, host: str, text: str) -> None:
    # Python adds the address to the text of some.
    assert str(port_error(OSError(number, "… (while attempting to bind on …)"), host, 80, "--port")) == text
