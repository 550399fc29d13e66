"""Every setting of every role, one frozen dataclass each. Only `plane.cli` reads arguments and the environment."""

from __future__ import annotations

import enum
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from plane import timing
from plane.decisions.access import ApiKeys
from plane.decisions.backends.port_selection import PortRange
from plane.decisions.http.limits import DEFAULT_LIMITS, HttpLimits
from plane.decisions.http.trusted_proxies import Network
from plane.protocol.names import ClusterName, ControllerName, NodeName
from plane.transport.controller_url import ControllerUrl

__all__ = [
    "AcmeSettings",
    "ControllerLimits",
    "ControllerSettings",
    "DnsSettings",
    "DroneSettings",
    "ExecutorSettings",
    "ProxySettings",
    "RuntimeKind",
    "RuntimeSettings",
]


class RuntimeKind(enum.StrEnum):
    """The runtime of backends. ``AUTO``: Docker where an engine responds, else processes."""

    AUTO = "auto"
    PROCESS = "process"
    DOCKER = "docker"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerLimits:
    """Timeouts and limits of a controller's HTTP API and background loops.

    Attributes:
        keep_alive_s: a connection without a further request is closed after this time. Longer than that of proxies in
            front of it: the client must be the first to close a connection.
        head_s: for a request head, from the opening of its connection or from its own first byte.
        body_s: for a request body; the largest takes a second over a slow line.
        fast_path_body_s: for the body of a plain connect request whose head came alone; then aiohttp takes over.
        incomplete_body_bytes: of all incomplete bodies together, so that slow clients cannot fill the memory.
        stream_keep_alive_s: interval of keepalives on a status stream. A reader that has not received one when the next
            is due is dropped.
        stream_write_s: for a past state, or the end, of a status stream.
        route_lookup_s: for the backend of a route lookup to become ready. Longer than `STARTUP_TIMEOUT_S`, within which
            it is ready or terminated.
        queued_events: events that may be queued for one subscriber; more than in a controller's busiest second.
        forward_auth_s: for a response of the forward-auth server, including the wait for a connection.
        cleanup_interval_s: between two cleanups of the database.
        shutdown_grace_s: for requests in flight when the controller stops.
    """

    keep_alive_s: float = 3630.0
    head_s: float = timing.REQUEST_HEAD_TIMEOUT_S
    body_s: float = 30.0
    fast_path_body_s: float = 1.0
    incomplete_body_bytes: int = 64 * 1024 * 1024
    stream_keep_alive_s: float = 15.0
    stream_write_s: float = 15.0
    route_lookup_s: float = timing.STARTUP_TIMEOUT_S + 60
    queued_events: int = 10_000
    forward_auth_s: float = 5.0
    cleanup_interval_s: float = timing.CLEANUP_INTERVAL_S
    shutdown_grace_s: float = timing.CONTROLLER_SHUTDOWN_GRACE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """Settings of a controller.

    Attributes:
        db: ``postgresql://`` URL of the database.
        name: this controller's name, ``co-…``.
        host, port: the address to listen on. Port 0: any free one.
        controller_url: this controller's URL for clients, used in status URLs. None: the address that it listens on.
        default_cluster: for connect requests that name no cluster.
        best_of: a new backend is placed on the least loaded of this many random drones.
        cleanup_min_age_days: delete terminated backends and events that are older. None: keep them.
        event_retention_days: delete events of the feed that are older.
        webhook_allowed_networks: networks that webhooks may send to although they are not public.
        cleanup_batch_size: backends that are deleted in one transaction.
        api_key_file: the keys that authorize callers of the control API. None: no key is required.
        fixed_api_keys: the same, without a file.
        allowed_hosts: host names, beside that of ``controller_url``, that clients of a controller without keys may use.
        forward_auth: URL of a server that decides whether a request is allowed. None: there is none.
        owns_database: the same program runs the database server, so that its restarts lose nothing.
        traces: export traces to the collector that the environment names (`plane.decisions.trace_export`).
        limits: timeouts and limits.
    """

    db: str = field(repr=False)
    name: ControllerName
    host: str = "127.0.0.1"
    port: int = 8080
    controller_url: str | None = None
    default_cluster: ClusterName | None = None
    best_of: int = 2
    cleanup_min_age_days: int | None = None
    cleanup_batch_size: int = 100
    event_retention_days: int = 7
    webhook_allowed_networks: tuple[Network, ...] = ()
    api_key_file: Path | None = None
    fixed_api_keys: ApiKeys | None = None
    allowed_hosts: tuple[str, ...] = ()
    forward_auth: str | None = None
    owns_database: bool = False
    traces: bool = False
    limits: ControllerLimits = ControllerLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """How backends are run, by a drone or by an external executor.

    Attributes:
        runtime: the runtime.
        docker_socket: path of the engine's Unix socket.
        docker_runtime: the engine's name of an OCI runtime. None: its default.
        log_config: the engine's ``LogConfig`` for containers. None: its own file driver, bounded.
        mount_base: the folder below which folders may be mounted into backends. None: no mounts.
        auto_prune_images: remove unused images.
        auto_prune_containers_older_than_s: remove containers this long after they stopped.
        expose: folders that isolated processes can read although they are below /tmp, /var/tmp, /run or a folder that
            the backends' user may not enter.
        hide: files and folders that isolated processes cannot read, such as the configuration of this program.
        backend_user: the user of processes whose executable names none, if this program is root. None: see
            `plane.runtime.process.backend_user`.
        backend_ports: the ports of backends that are processes. None: the machine's default.
        log_limit_bytes: the output that is kept, per backend.
        soft_terminate_grace_s: from SIGTERM to SIGKILL.
        startup_timeout_s: a backend that does not respond to HTTP by then is killed.
    """

    runtime: RuntimeKind = RuntimeKind.AUTO
    docker_socket: Path = Path("/var/run/docker.sock")
    docker_runtime: str | None = None
    log_config: dict[str, Any] | None = None
    mount_base: Path | None = None
    auto_prune_images: bool = False
    auto_prune_containers_older_than_s: float = 0.0
    expose: tuple[Path, ...] = ()
    hide: tuple[Path, ...] = ()
    backend_user: str | None = None
    backend_ports: PortRange | None = None
    log_limit_bytes: int = 10 * 1024 * 1024
    soft_terminate_grace_s: float = timing.SOFT_TERMINATE_GRACE_S
    startup_timeout_s: float = timing.STARTUP_TIMEOUT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class DroneSettings(RuntimeSettings):
    """Settings of a drone.

    Attributes:
        controller_url: the controller to register with.
        cluster, pool: those that this drone belongs to.
        name: this drone's name, ``dr-…``. None: the one in its state store, else a random one.
        installation: distinguishes drones of the same name and cluster that share a machine or a Docker engine.
        ip: the address at which proxies reach the backends of this drone.
        db_path: the state store's file. None: in memory, so a restart forgets everything.
        terminate_on_exit: backends end with the drone. Those that a former process left are ended at the start.
        executor_socket: the Unix socket of an external executor that runs the backends.
        metrics_host, metrics_port: where Prometheus reads metrics, and probes read health. None: nowhere.
        traces: export traces to the collector that the environment names (`plane.decisions.trace_export`).
    """

    controller_url: ControllerUrl
    cluster: ClusterName
    name: NodeName | None = None
    installation: str = ""
    ip: str = "127.0.0.1"
    pool: str = ""
    db_path: Path | None = None
    terminate_on_exit: bool = False
    executor_socket: Path | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    traces: bool = False

    @property
    def backends_outlive_it(self) -> bool:
        """Whether backends continue when the drone ends. Without a file no later process would know them."""
        return self.db_path is not None and not self.terminate_on_exit

    @property
    def backends_folder(self) -> Path | None:
        """The folder of backends' files, their output among them: beside the state store."""
        return None if self.db_path is None else self.db_path.with_name(f"{self.db_path.name}-backends")

    @property
    def watchdog_place(self) -> Path | None:
        """The symbolic link that names the state store's watchdog. None: no watchdog outlives the drone."""
        return None if self.db_path is None else self.db_path.resolve().with_name(f"{self.db_path.name}.watchdog")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSettings(RuntimeSettings):
    """Settings of an external executor.

    Attributes:
        socket: the Unix socket to listen at.
    """

    socket: Path
    # An executor stores nothing: backends end with it.
    backends_outlive_it: ClassVar[bool] = False
    db_path: ClassVar[None] = None
    backends_folder: ClassVar[None] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyLimits:
    """Timeouts of a proxy, in seconds. An idle WebSocket counts as used and has no timeout.

    Attributes:
        head_s: from the first byte of a request to the end of its head. For a new connection, from its start.
        idle_s: between two requests of one connection. Browsers close theirs earlier.
        connect_s: for a backend to accept a connection.
        body_s: without progress of a body, because the client does not send or either side does not read. Waiting for
            a response does not count, since long polls and event streams are silent. The same timeout applies to a
            tunnel that is half-closed or whose peer does not read.
        peer_lost_s: the kernel closes a connection whose peer acknowledges nothing for this long. Must be longer than
            the keepalive probes of `plane.proxy.data_plane.lost_peers`.
        sweep_interval_s: how often deadlines are checked.
        half_closed_s, closing_s, linger_s, first_request_s: not options; see
            `plane.decisions.http.exchange_timeouts.ExchangeTimeouts`.
        waiting_page_after_s: not an option. A backend that starts within this time shows no waiting page before.
    """

    head_s: float = 10.0
    idle_s: float = 75.0
    connect_s: float = 10.0
    body_s: float = 60.0
    peer_lost_s: float = 120.0
    sweep_interval_s: float = 1.0
    half_closed_s: float = 2.0
    closing_s: float = 60.0
    linger_s: float = 2.0
    first_request_s: float = 1.0
    waiting_page_after_s: float = 1.0

    @property
    def lost_after_s(self) -> float:
        """When the kernel gives up a peer: not before the proxy gives up one that does not read."""
        return max(self.peer_lost_s, 2 * self.body_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeSettings:
    """How a proxy orders the certificate of its cluster.

    Attributes:
        endpoint: URL of the CA's directory.
        email: the address of contact for the CA.
        eab: key id and key of an external account binding, if the CA wants one.
        ca_file: PEM of a private CA to trust for ``endpoint``, beside the CAs of the system.
        name_server: address and port of the only name server to query for the value of a challenge. None: those of
            the zone.
    """

    endpoint: str
    email: str
    eab: tuple[str, bytes] | None = field(default=None, repr=False)
    ca_file: Path | None = None
    name_server: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """Settings of a proxy.

    Attributes:
        controller_url: the controller to register with.
        cluster: the host name, and port, under which browsers reach this proxy.
        name: this proxy's name, ``px-…``.
        public_hosts: further names, with their ports, that are served like the cluster's.
        host, http_port: where to listen for plain HTTP. Port 0: any free port.
        https_port: where to listen for TLS; the HTTP port then only redirects. None: plain HTTP only.
        cert_path: JSON file of the certificate's chain and key. tls_pair: the two as PEM files.
        acme: how the certificate is ordered. None: it is not ordered.
        root_redirect_url: the target of ``/``. None: 400.
        workers: processes that share the ports.
        metrics_host, metrics_port: where Prometheus reads metrics, and probes read health. Each worker has the next
            port. None: nowhere.
        trusted_proxies: networks of load balancers whose statements about their clients are used.
        proxy_protocol: connections of trusted proxies begin with a header of the PROXY protocol.
        waiting_page: show browsers a page while their backend starts.
        traces: export traces to the collector that the environment names (`plane.decisions.trace_export`).
        limits, http_limits: its timeouts, and the sizes of parts of a message.
    """

    controller_url: ControllerUrl
    cluster: ClusterName
    name: NodeName
    public_hosts: tuple[str, ...] = ()
    host: str = "0.0.0.0"  # noqa: S104 - browsers are on other machines
    http_port: int = 9090
    https_port: int | None = None
    cert_path: Path | None = None
    tls_pair: tuple[Path, Path] | None = None
    acme: AcmeSettings | None = None
    root_redirect_url: str | None = None
    workers: int = 1
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    trusted_proxies: tuple[Network, ...] = ()
    proxy_protocol: bool = False
    waiting_page: bool = False
    traces: bool = False
    limits: ProxyLimits = ProxyLimits()
    http_limits: HttpLimits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSettings:
    """Settings of a DNS server.

    Attributes:
        controller_url: the controller to register with.
        name: this server's name, ``ns-…``.
        zone: the zone that is delegated to it. None: ``_acme-challenge.{cluster}`` of any cluster (for tests).
        hosts, port: where to listen, UDP and TCP. Port 0: any free port.
        metrics_host, metrics_port: where Prometheus reads metrics, and probes read health. None: nowhere.
    """

    controller_url: ControllerUrl
    name: NodeName
    zone: str | None = None
    hosts: tuple[str, ...] = ("0.0.0.0",)  # noqa: S104 - resolvers are on other machines
    port: int = 53
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None

    @staticmethod
    def all_hosts() -> tuple[str, ...]:
        """Return all addresses of the machine, those of IPv6 only where it has any."""
        return ("0.0.0.0", "::") if socket.has_dualstack_ipv6() else ("0.0.0.0",)  # noqa: S104 - as above
