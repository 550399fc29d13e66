"""`plane admin drain` and `undrain`."""

from __future__ import annotations

from plane.cli.admin.options import DEFAULT_CONTROLLER, ControllerOption
from plane.cli.output import console
from plane.client import AsyncPlane

__all__ = ["drain", "undrain"]


async def drain(*, cluster: str, drone: str, controller: ControllerOption = DEFAULT_CONTROLLER) -> None:
    """Give a drone no more backends; those that it has live on.

    Example: plane admin drain --cluster plane.example.com --drone dr-one

    Parameters
    ----------
    cluster
        Cluster of the drone.
    drone
        Name of the drone.
    """
    async with AsyncPlane(controller) as plane:
        updated = await plane.drain(cluster, drone)
    console().print(f"Drone {drone} {'gets no more backends' if updated else 'was draining already'}")


async def undrain(*, cluster: str, drone: str, controller: ControllerOption = DEFAULT_CONTROLLER) -> None:
    """Give a drained drone backends again.

    Example: plane admin undrain --cluster plane.example.com --drone dr-one

    Parameters
    ----------
    cluster
        Cluster of the drone.
    drone
        Name of the drone.
    """
    async with AsyncPlane(controller) as plane:
        updated = await plane.undrain(cluster, drone)
    console().print(f"Drone {drone} {'gets backends again' if updated else 'was not draining'}")
