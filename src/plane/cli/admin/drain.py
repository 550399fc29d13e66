"""`plane admin drain` and `undrain`."""

from __future__ import annotations

from plane.cli.admin.options import DEFAULT_CONTROLLER, ClusterOfDroneOption, ControllerOptions, DroneOption
from plane.cli.output import console

__all__ = ["drain", "undrain"]


async def drain(
    *, cluster: ClusterOfDroneOption, drone: DroneOption, controller: ControllerOptions = DEFAULT_CONTROLLER
) -> None:
    """Stop placing backends on a drone; those that it has continue.

    Example: plane admin drain --cluster plane.example.com --drone dr-one
    """
    async with controller.client() as plane:
        updated = await plane.drain(cluster, drone)
    console().print(f"Drone {drone} {'gets no more backends' if updated else 'was draining already'}")


async def undrain(
    *, cluster: ClusterOfDroneOption, drone: DroneOption, controller: ControllerOptions = DEFAULT_CONTROLLER
) -> None:
    """Place backends on a drained drone again.

    Example: plane admin undrain --cluster plane.example.com --drone dr-one
    """
    async with controller.client() as plane:
        updated = await plane.undrain(cluster, drone)
    console().print(f"Drone {drone} {'gets backends again' if updated else 'was not draining'}")
