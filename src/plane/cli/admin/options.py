"""Options that several commands of `plane admin` have: which controller, with which key, and which drone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from plane.cli.controller_access import KeyFileOption, controller_access
from plane.transport.controller_url import ControllerUrl

if TYPE_CHECKING:
    from plane.client import AsyncPlane

__all__ = ["DEFAULT_CONTROLLER", "ClusterOfDroneOption", "ControllerOptions", "DroneOption"]


@Parameter(name="*")
@dataclass(frozen=True)
class ControllerOptions:
    """Which controller is asked, and the key that it is sent."""

    controller: Annotated[
        str,
        Parameter(
            name="--controller",
            env_var="PLANE_CONTROLLER",
            help="The controller, as http://HOST:PORT or https://HOST; may also stand before the command.",
        ),
    ] = "http://127.0.0.1:8080"
    controller_key_file: KeyFileOption = None

    def url(self) -> ControllerUrl:
        """Return the controller's URL with the key.

        Raises:
            ConfigurationError: the URL or the file of the key cannot be used.
        """
        return controller_access(self.controller, self.controller_key_file)

    def client(self) -> AsyncPlane:
        """Return a client for the controller.

        Raises:
            ConfigurationError: as `url`.
        """
        from plane.client import AsyncPlane

        url = self.url()
        return AsyncPlane(url.base, token=url.bearer_token)


DEFAULT_CONTROLLER = ControllerOptions()

DroneOption = Annotated[str, Parameter(name="--drone", help="Name of the drone.")]
ClusterOfDroneOption = Annotated[str, Parameter(name="--cluster", help="Cluster of the drone.")]
