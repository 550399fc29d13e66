"""Says why a port cannot be listened on, for all programs that listen."""

from __future__ import annotations

import errno

from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError
from plane.transport.port_holder import port_holder

__all__ = ["port_error", "port_error_reason"]


def port_error(error: OSError, host: str, port: int, option: str) -> ConfigurationError:
    """Return the error for a port that cannot be listened on. ``option`` chooses another one."""
    advice = "" if error.errno == errno.EADDRNOTAVAIL else f"; choose another with {option}"
    return ConfigurationError(f"{port_error_reason(error, host, port)}{advice}")


def port_error_reason(error: OSError, host: str, port: int) -> str:
    """Return why the port cannot be listened on. The program that uses it is named if it can be found."""
    match error.errno:
        case errno.EADDRINUSE:
            reason = f"is in use by {port_holder(host, port) or 'another program'}"
        case errno.EACCES:
            reason = "requires root (or CAP_NET_BIND_SERVICE)"
        case errno.EADDRNOTAVAIL:
            reason = "cannot be used: it is not an address of this machine"
        case _:
            reason = f"cannot be used: {error_reason(error)}"
    return f"port {port} on {host} {reason}"
