"""The file of `plane run-config`: one component, with the names of fields of the original (page 6)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from plane.protocol.codec import UInt16, Variants

__all__ = [
    "AcmeConfig",
    "ControllerConfig",
    "DnsConfig",
    "DockerExecutorConfig",
    "DroneConfig",
    "EabKeypair",
    "ExecutorConfig",
    "PortConfig",
    "ProcessExecutorConfig",
    "ProxyConfig",
    "RunConfig",
    "UnixSocketExecutorConfig",
]

Seconds = Annotated[float, msgspec.Meta(ge=0)]


class _Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A field that is not known is a typing error, and is refused."""


class ControllerConfig(_Config, frozen=True, kw_only=True):
    """A controller. ``bind_addr`` is ``IP:PORT``, ``id`` its name; ``api_key_file`` and ``allowed_hosts`` are ours."""

    db_url: str
    bind_addr: str = "127.0.0.1:8080"
    id: str | None = None
    controller_url: str | None = None
    default_cluster: str | None = None
    cleanup_min_age_days: int | None = None
    cleanup_batch_size: int | None = None
    forward_auth: str | None = None
    best_of: int | None = None
    api_key_file: str | None = None
    allowed_hosts: list[str] | None = None


class DockerExecutorConfig(_Config, frozen=True, kw_only=True):
    """Containers. ``cleanup_min_age`` is in seconds; ``log_config`` is Docker's object."""

    runtime: str | None = None
    log_config: Any = None
    mount_base: str | None = None
    auto_prune: bool | None = None
    cleanup_min_age: Seconds | None = None


class UnixSocketExecutorConfig(_Config, frozen=True, kw_only=True):
    """Another process runs the backends."""

    socket_path: str


class ProcessExecutorConfig(_Config, frozen=True, kw_only=True):
    """Plain processes; ours. ``expose``, ``hide``: folders that isolated ones can read, files that they cannot."""

    mount_base: str | None = None
    expose: list[str] | None = None
    hide: list[str] | None = None
    backend_user: str | None = None


class ExecutorConfig(Variants, frozen=True, kw_only=True, rename=None):
    """What runs a drone's backends."""

    docker: DockerExecutorConfig | UnsetType = UNSET
    unix_socket: UnixSocketExecutorConfig | UnsetType = UNSET
    process: ProcessExecutorConfig | UnsetType = UNSET


class DroneConfig(_Config, frozen=True, kw_only=True):
    """A drone. ``cleanup_min_age`` is what 0.5.5 insists on and ignores; ``terminate_on_exit`` and
    ``controller_key_file`` are ours.
    """

    controller_url: str
    controller_key_file: str | None = None
    cluster: str
    name: str | None = None
    pool: str | None = None
    ip: str = "127.0.0.1"
    db_path: str | None = None
    executor_config: ExecutorConfig | None = None
    terminate_on_exit: bool | None = None
    cleanup_min_age: Seconds | None = None


class PortConfig(_Config, frozen=True, kw_only=True):
    """Where a proxy listens; with ``https_port`` it serves TLS."""

    http_port: UInt16
    https_port: UInt16 | None = None


class EabKeypair(_Config, frozen=True, kw_only=True):
    """An external account binding; the key is base64url."""

    key_id: str
    key: str

    def __repr__(self) -> str:
        return f"EabKeypair(key_id={self.key_id!r}, key=…)"


class AcmeConfig(_Config, frozen=True, kw_only=True):
    """Where a proxy orders its certificate; ``ca_file`` and ``name_server`` are ours."""

    endpoint: str
    mailto_email: str
    acme_eab_keypair: EabKeypair | None = None
    ca_file: str | None = None
    name_server: str | None = None


class ProxyConfig(_Config, frozen=True, kw_only=True):
    """A proxy. ``controller_key_file``, ``trusted_proxies`` and ``proxy_protocol`` are ours."""

    controller_url: str
    controller_key_file: str | None = None
    cluster: str
    name: str | None = None
    cert_path: str | None = None
    port_config: PortConfig | None = None
    acme_config: AcmeConfig | None = None
    root_redirect_url: str | None = None
    trusted_proxies: list[str] | None = None
    proxy_protocol: bool | None = None


class DnsConfig(_Config, frozen=True, kw_only=True):
    """A DNS server. ``controller_key_file`` is ours."""

    controller_url: str
    controller_key_file: str | None = None
    name: str | None = None
    port: UInt16 = 53
    zone: str | None = None


class RunConfig(Variants, frozen=True, kw_only=True):
    """``{"Controller": {…}}``, ``{"Drone": {…}}``, ``{"Proxy": {…}}`` or ``{"Dns": {…}}``."""

    controller: ControllerConfig | UnsetType = UNSET
    drone: DroneConfig | UnsetType = UNSET
    proxy: ProxyConfig | UnsetType = UNSET
    dns: DnsConfig | UnsetType = UNSET
