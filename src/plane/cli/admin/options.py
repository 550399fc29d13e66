"""Options that commands of `plane admin` share: the controller, the key for it, and the drone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from plane.cli.controller_access import KeyFileOption, controller_access

if TYPE_CHECKING:
    from plane.client import AsyncPlane
    from plane.transport.controller_url import ControllerUrl

__all__ = ["DEFAULT_CONTROLLER", "ClusterOfDroneOption", "ControllerOptions", "DroneOption"]


@Parameter(name="*")
@dataclass(frozen=True)
class ControllerOptions:
    """The controller, and the key for it."""

    controller: Annotated[
        str,
        Parameter(
            name="--controller",
            env_var="PLANE_CONTROLLER",
            help="The controller, as http://HOST:PORT or https://HOST; may also be given before the command.",
        ),
    ] = "http://127.0.0.1:8080"
    controller_key_file: KeyFileOption = None

    def url(self) -> ControllerUrl:
        """Return the controller's URL with the key.

        Raises:
            ConfigurationError: the URL is malformed, or the key file cannot be read.
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
