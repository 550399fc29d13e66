"""`plane proxy`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from plane.cli.arguments import cluster_name, node_name
from plane.cli.serving import serve
from plane.protocol.names import Prefix
from plane.settings import ProxySettings
from plane.transport.controller_url import ControllerUrl

__all__ = ["proxy"]


def proxy(
    *,
    controller_url: str,
    cluster: str,
    name: str | None = None,
    host: str = "0.0.0.0",  # noqa: S104 - browsers come from elsewhere
    http_port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 9090,
    root_redirect_url: str | None = None,
) -> None:
    """Run a proxy: what browsers reach.

    Parameters
    ----------
    controller_url
        The controller, as http://HOST:PORT or https://TOKEN@HOST.
    cluster
        Host name (and port) under which browsers reach this proxy, as HOST or HOST:PORT.
    name
        Name of this proxy, px-…; default random.
    host
        Address to listen on.
    http_port
        Port to listen on for plain HTTP; 0 takes any free one.
    root_redirect_url
        Where / leads; without it, / is answered with 400.
    """
    from plane.proxy.running import running_proxy

    serve(
        running_proxy(
            ProxySettings(
                controller_url=ControllerUrl.parse(controller_url),
                cluster=cluster_name(cluster),
                name=node_name(name, Prefix.PROXY),
                host=host,
                http_port=http_port,
                root_redirect_url=root_redirect_url,
            )
        )
    )
