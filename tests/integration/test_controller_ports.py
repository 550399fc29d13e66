"""The ports on which a controller listens."""

from __future__ import annotations

import socket

import pytest

from plane.controller.server import start_controller
from plane.protocol.names import ControllerName
from plane.settings import ControllerSettings


async def test_a_port_on_which_another_program_listens_is_reported(postgres_url: str) -> None:
    settings = ControllerSettings(db=postgres_url, name=ControllerName("co-a"), port=0)
    with socket.socket() as bound, socket.socket() as other:
        for end in (bound, other):
            # The system permits both to be bound, and one of them to listen.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        other.bind(bound.getsockname())
        other.listen()
        async with start_controller(settings) as controller:
            with pytest.raises(OSError, match="Address already in use"):
                await controller.listen(bound)
