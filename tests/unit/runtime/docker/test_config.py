"""The configuration of containers, and the engine's description of them."""

from __future__ import annotations

from typing import Any

import pytest

from plane.protocol.spawn import Network
from plane.runtime.base import BackendFailed
from plane.runtime.docker.config import ContainerDefaults, container_config, published_port, read_executable

DEFAULTS = ContainerDefaults(drone="dr-a", cluster="c.test")


def config(**executable: Any) -> dict[str, Any]:
    wanted = read_executable({"image": "i", **executable})
    return container_config("b", wanted, None, None, DEFAULTS, None)


def test_a_container_without_a_network_publishes_nothing() -> None:
    host = config(network="none")["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert "PortBindings" not in host
    assert "NetworkMode" not in config(network=Network.SHARED.value)["HostConfig"]
    assert "PortBindings" in config()["HostConfig"]


def test_network_none_and_a_network_name_are_refused_together() -> None:
    with pytest.raises(BackendFailed, match="network_name"):
        config(network="none", network_name="mine")


V4, V6 = {"HostIp": "0.0.0.0", "HostPort": "32768"}, {"HostIp": "::", "HostPort": "32770"}


@pytest.mark.parametrize(
    ("bindings", "ip", "port"),
    [
        ([V4, V6], "10.0.0.1", 32768),
        ([V6, V4], "10.0.0.1", 32768),
        ([V6, V4], None, 32768),
        ([V4, V6], "fd00::1", 32770),
        ([V4], "fd00::1", 32768),
        ([{"HostIp": "", "HostPort": "5"}], "10.0.0.1", 5),
        ([], "10.0.0.1", None),
        (None, None, None),
    ],
)
def test_the_published_port_is_of_the_family_of_the_drones_address(
    bindings: list[dict[str, str]] | None, ip: str | None, port: int | None
) -> None:
    """The engine may choose different ports: the other one can be another container's."""
    assert published_port({"NetworkSettings": {"Ports": {"8080/tcp": bindings}}}, ip) == port
