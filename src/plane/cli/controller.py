"""`plane controller`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from plane.cli.arguments import cluster_name, controller_name, host_argument, http_url, public_url, webhook_networks
from plane.decisions.trace_export import traces_are_exported
from plane.settings import ControllerSettings

__all__ = ["controller"]


def controller(
    *,
    db: Annotated[str, Parameter(env_var="DATABASE_URL")],
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 8080,
    name: str | None = None,
    controller_url: str | None = None,
    default_cluster: str | None = None,
    best_of: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=100))] = 2,
    cleanup_min_age_days: Annotated[int | None, Parameter(validator=validators.Number(gte=0, lte=36500))] = None,
    cleanup_batch_size: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=10_000))] = 100,
    event_retention_days: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=3650))] = 7,
    api_key_file: Annotated[Path | None, Parameter(env_var="PLANE_API_KEY_FILE")] = None,
    forward_auth: str | None = None,
    webhook_allow_network: Annotated[list[str] | None, Parameter(negative="")] = None,
    allowed_host: Annotated[list[str] | None, Parameter(negative="")] = None,
) -> None:
    """Run a controller: the HTTP API and the sockets of nodes. It migrates the database first.

    Example: plane controller --db postgresql://plane@db/plane --default-cluster plane.example.com

    Parameters
    ----------
    db
        PostgreSQL 14 or newer, as postgresql://USER@HOST:PORT/NAME.
    host
        Address to listen on.
    port
        Port to listen on; 0 for any free one.
    name
        Name of this controller, co-…; default random.
    controller_url
        URL under which others reach this controller, for status URLs. Default: the address it listens on.
    default_cluster
        Cluster of connect requests that name none.
    best_of
        A new backend is placed on the least loaded of this many random drones.
    cleanup_min_age_days
        Delete terminated backends and events that are older than this many days. Default: keep them.
    cleanup_batch_size
        How many terminated backends are deleted in one transaction.
    event_retention_days
        Delete events of the event feed that are older than this many days.
    api_key_file
        Require API keys: a file with one NAME ROLE sha256:HASH per line, as `plane api-key` makes them. SIGHUP reloads
        it.
    forward_auth
        Send each request to the control API to this URL first; a 2xx response lets it pass.
    webhook_allow_network
        Network, such as 10.0.0.0/8, that webhooks may send to although it is not public; may be given several times.
    allowed_host
        Host name under which clients reach a controller without keys, beside its IP addresses, localhost and the host
        of --controller-url; may be given several times.
    """
    from plane.cli.serving import serve
    from plane.controller.server import start_controller

    serve(
        start_controller(
            ControllerSettings(
                db=db,
                name=controller_name(name),
                host=host,
                port=port,
                controller_url=public_url(controller_url),
                default_cluster=cluster_name(default_cluster, "--default-cluster") if default_cluster else None,
                best_of=best_of,
                cleanup_min_age_days=cleanup_min_age_days,
                cleanup_batch_size=cleanup_batch_size,
                event_retention_days=event_retention_days,
                api_key_file=api_key_file,
                forward_auth=http_url(forward_auth, "--forward-auth") if forward_auth else None,
                webhook_allowed_networks=webhook_networks(webhook_allow_network or ()),
                allowed_hosts=tuple(host_argument(host, "--allowed-host") for host in allowed_host or ()),
                traces=traces_are_exported(os.environ),
            )
        )
    )
