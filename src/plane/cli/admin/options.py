"""Options that several commands of `plane admin` have: which controller, and which drone."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

__all__ = ["DEFAULT_CONTROLLER", "ClusterOfDroneOption", "ControllerOption", "DroneOption"]

DEFAULT_CONTROLLER = "http://127.0.0.1:8080"

ControllerOption = Annotated[
    str,
    Parameter(
        name="--controller",
        env_var="PLANE_CONTROLLER",
        help="The controller, as http://HOST:PORT or https://TOKEN@HOST; may also stand before the command.",
    ),
]

DroneOption = Annotated[str, Parameter(name="--drone", help="Name of the drone.")]
ClusterOfDroneOption = Annotated[str, Parameter(name="--cluster", help="Cluster of the drone.")]
