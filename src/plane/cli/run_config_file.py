"""The schema of `plane run-config` files: one component, with a field for each setting.

Fields that Plane 0.5.5 has keep their names; the others are additions. `plane.cli.run_config_settings` reads them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from plane import timing
from plane.decisions.http.limits import DEFAULT_LIMITS
from plane.protocol.codec import UInt16, Variants
from plane.settings import ProxyLimits

__all__ = [
    "AcmeConfig",
    "AutoExecutorConfig",
    "BackendsConfig",
    "ControllerConfig",
    "DnsConfig",
    "DockerExecutorConfig",
    "DroneConfig",
    "EabKeypair",
    "ExecutorComponentConfig",
    "ExecutorConfig",
    "HttpLimitsConfig",
    "PortConfig",
    "ProcessExecutorConfig",
    "ProxyConfig",
    "ProxyTimeoutsConfig",
    "RunConfig",
    "RuntimeConfig",
    "UnixSocketExecutorConfig",
]

Seconds = Annotated[float, msgspec.Meta(ge=0)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0)]
Positive = Annotated[int, msgspec.Meta(gt=0)]

_TIMEOUTS = ProxyLimits()


class _Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all parts. An unknown field is refused."""


class ControllerConfig(_Config, frozen=True, kw_only=True):
    """A controller. ``bind_addr`` is ``IP:PORT``, ``id`` its name.

    Additions: ``api_key_file``, ``allowed_hosts``, ``event_retention_days``,
    ``webhook_allowed_networks``.
    """

    db_url: str
    bind_addr: str = "127.0.0.1:8080"
    id: str | None = None
    controller_url: str | None = None
    default_cluster: str | None = None
    cleanup_min_age_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] | None = None
    cleanup_batch_size: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    forward_auth: str | None = None
    best_of: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    api_key_file: str | None = None
    allowed_hosts: list[str] | None = None
    event_retention_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] | None = None
    webhook_allowed_networks: list[str] | None = None


class DockerExecutorConfig(_Config, frozen=True, kw_only=True):
    """Containers. ``cleanup_min_age`` is in seconds, ``log_config`` Docker's object. Addition: ``socket``."""

    runtime: str | None = None
    log_config: dict[str, Any] | None = None
    mount_base: str | None = None
    auto_prune: bool | None = None
    cleanup_min_age: Seconds | None = None
    socket: str | None = None


class UnixSocketExecutorConfig(_Config, frozen=True, kw_only=True):
    """Another process runs the backends."""

    socket_path: str


class ProcessExecutorConfig(_Config, frozen=True, kw_only=True):
    """Processes (addition). ``expose``, ``hide``: paths that isolated ones can read, and cannot read."""

    mount_base: str | None = None
    expose: list[str] | None = None
    hide: list[str] | None = None
    backend_user: str | None = None
    backend_ports: str | None = None


class AutoExecutorConfig(_Config, frozen=True, kw_only=True):
    """Docker where an engine responds, else processes (addition). A ``mount_base`` of either applies to both."""

    docker: DockerExecutorConfig | None = None
    process: ProcessExecutorConfig | None = None


class ExecutorConfig(Variants, frozen=True, kw_only=True, rename=None):
    """The runtime of a drone."""

    docker: DockerExecutorConfig | UnsetType = UNSET
    unix_socket: UnixSocketExecutorConfig | UnsetType = UNSET
    process: ProcessExecutorConfig | UnsetType = UNSET
    auto: AutoExecutorConfig | UnsetType = UNSET


class RuntimeConfig(Variants, frozen=True, kw_only=True, rename=None):
    """The runtime of an external executor."""

    docker: DockerExecutorConfig | UnsetType = UNSET
    process: ProcessExecutorConfig | UnsetType = UNSET
    auto: AutoExecutorConfig | UnsetType = UNSET


class BackendsConfig(_Config, frozen=True, kw_only=True):
    """Settings of all runtimes (addition)."""

    log_limit_bytes: Annotated[int, msgspec.Meta(ge=100_000)] = 10 * 1024 * 1024
    soft_terminate_grace_seconds: PositiveSeconds = timing.SOFT_TERMINATE_GRACE_S
    startup_timeout_seconds: PositiveSeconds = timing.STARTUP_TIMEOUT_S


class DroneConfig(_Config, frozen=True, kw_only=True):
    """A drone. 0.5.5 requires ``cleanup_min_age`` and ignores it.

    Additions: ``terminate_on_exit``, ``backends``, ``controller_key_file``, ``metrics_port``, ``metrics_host``.
    """

    controller_url: str
    controller_key_file: str | None = None
    cluster: str
    name: str | None = None
    pool: str | None = None
    ip: str = "127.0.0.1"
    db_path: str | None = None
    executor_config: ExecutorConfig | None = None
    backends: BackendsConfig | None = None
    terminate_on_exit: bool | None = None
    cleanup_min_age: Seconds | None = None
    metrics_port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] | None = None
    metrics_host: str | None = None


class ExecutorComponentConfig(_Config, frozen=True, kw_only=True):
    """An external executor that listens on the Unix socket ``socket_path`` (addition)."""

    socket_path: str
    executor_config: RuntimeConfig | None = None
    backends: BackendsConfig | None = None


class PortConfig(_Config, frozen=True, kw_only=True):
    """The ports of a proxy. With ``https_port`` it serves TLS. Addition: ``host``."""

    http_port: UInt16
    https_port: UInt16 | None = None
    host: str | None = None


class EabKeypair(_Config, frozen=True, kw_only=True):
    """An external account binding. ``key`` is base64url; its default is ``PLANE_ACME_EAB_HMAC_KEY``."""

    key_id: str
    key: str | None = None

    def __repr__(self) -> str:
        return f"EabKeypair(key_id={self.key_id!r}, key=…)"


class AcmeConfig(_Config, frozen=True, kw_only=True):
    """How a proxy orders its certificate. Additions: ``ca_file``, ``name_server``."""

    endpoint: str
    mailto_email: str
    acme_eab_keypair: EabKeypair | None = None
    ca_file: str | None = None
    name_server: str | None = None


class ProxyTimeoutsConfig(_Config, frozen=True, kw_only=True):
    """Timeouts of a proxy in seconds; see `plane.settings.ProxyLimits`."""

    head: PositiveSeconds = _TIMEOUTS.head_s
    idle: PositiveSeconds = _TIMEOUTS.idle_s
    connect: PositiveSeconds = _TIMEOUTS.connect_s
    body: PositiveSeconds = _TIMEOUTS.body_s


class HttpLimitsConfig(_Config, frozen=True, kw_only=True):
    """Sizes of the parts of a request; see `plane.decisions.http.limits`."""

    head_bytes: Positive = DEFAULT_LIMITS.head_bytes
    target_bytes: Positive = DEFAULT_LIMITS.target_bytes
    header_fields: Positive = DEFAULT_LIMITS.fields
    chunk_line_bytes: Positive = DEFAULT_LIMITS.chunk_line_bytes


class ProxyConfig(_Config, frozen=True, kw_only=True):
    """A proxy. Additions: the fields after ``root_redirect_url``, and ``controller_key_file``."""

    controller_url: str
    controller_key_file: str | None = None
    cluster: str
    name: str | None = None
    cert_path: str | None = None
    port_config: PortConfig | None = None
    acme_config: AcmeConfig | None = None
    root_redirect_url: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    metrics_port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] | None = None
    metrics_host: str | None = None
    waiting_page: bool = False
    timeouts: ProxyTimeoutsConfig | None = None
    http_limits: HttpLimitsConfig | None = None
    trusted_proxies: list[str] | None = None
    proxy_protocol: bool = False


class DnsConfig(_Config, frozen=True, kw_only=True):
    """A DNS server. Additions: ``controller_key_file``, ``hosts``, ``metrics_port``, ``metrics_host``.

    Without ``zone``, ``_acme-challenge.{cluster}`` of any cluster has a response, for tests.
    """

    controller_url: str
    controller_key_file: str | None = None
    name: str | None = None
    port: UInt16 = 53
    zone: str | None = None
    hosts: list[str] | None = None
    metrics_port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] | None = None
    metrics_host: str | None = None


class RunConfig(Variants, frozen=True, kw_only=True):
    """``{"Controller": {…}}``, ``{"Drone": {…}}``, ``{"Proxy": {…}}``, ``{"Dns": {…}}`` or ``{"Executor": {…}}``."""

    controller: ControllerConfig | UnsetType = UNSET
    drone: DroneConfig | UnsetType = UNSET
    proxy: ProxyConfig | UnsetType = UNSET
    dns: DnsConfig | UnsetType = UNSET
    executor: ExecutorComponentConfig | UnsetType = UNSET
