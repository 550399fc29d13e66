"""Every setting of every role: one frozen dataclass each. Only `plane.cli` reads arguments and environment."""

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
    "ControllerSettings",
    "DnsSettings",
    "DroneSettings",
    "ExecutorSettings",
    "ProxySettings",
    "RuntimeKind",
    "RuntimeSettings",
]


class RuntimeKind(enum.StrEnum):
    """What runs backends. ``AUTO``: Docker where an engine answers, else processes."""

    AUTO = "auto"
    PROCESS = "process"
    DOCKER = "docker"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """Settings of a controller.

    Attributes:
        db: ``postgresql://`` URL of the database.
        name: this controller's name, ``co-…``.
        host, port: where to listen.
        controller_url: how others reach this controller; stands in status URLs. None: what it listens on.
        default_cluster: for connect requests that name no cluster.
        best_of: a new backend goes to the least loaded of this many random drones.
        cleanup_min_age_days: delete terminated backends and events that are older. None: keep them.
        cleanup_batch_size: backends that are deleted in one transaction.
        api_key_file: who may call the control API. None: everybody who reaches it.
        fixed_api_keys: the same, for keys that are in no file.
        allowed_hosts: names, beside that of ``controller_url``, by which clients reach a controller without keys.
        forward_auth: URL of a server that is asked whether a request may pass. None: no server is asked.
        demo_command: serve a front page at ``/`` that opens backends of this command. None: no front page.
        owns_database: its server is started by the same program, so that its restart loses nothing.
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
    api_key_file: Path | None = None
    fixed_api_keys: ApiKeys | None = None
    allowed_hosts: tuple[str, ...] = ()
    forward_auth: str | None = None
    demo_command: tuple[str, ...] | None = None
    owns_database: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """How backends are run, by a drone or by its external executor.

    Attributes:
        runtime: what runs them.
        docker_socket: path of the engine's Unix socket.
        docker_runtime: the engine's name of an OCI runtime. None: its default.
        log_config: the engine's ``LogConfig`` for containers. None: its own file driver, bounded.
        mount_base: the folder below which backends may have a folder mounted. None: no mounts.
        auto_prune_images: remove images that nobody uses.
        auto_prune_containers_older_than_s: remove stopped containers so long after their end.
        expose: folders that isolated processes can read although they are below /tmp, /var/tmp, /run or a folder that
            the backends' user may not enter.
        hide: files and folders that isolated processes cannot read: what this program was configured from.
        backend_user: that processes run as which name none, if this program is root. None: see
            `plane.runtime.process.backend_user`.
        backend_ports: where backends that are processes listen. None: the machine's default.
        log_limit_bytes: how much of each backend's output is kept.
        soft_terminate_grace_s: from SIGTERM to SIGKILL.
        startup_timeout_s: a backend that does not answer HTTP by then is killed.
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
        cluster, pool: what this drone serves.
        name: this drone's name, ``dr-…``. None: the one that its state store knows, or else a random one.
        ip: where proxies reach the backends of this drone.
        db_path: the state store's file. None: in memory, so a restart forgets everything.
        terminate_on_exit: backends end with the drone, and what a former process left is ended at the start.
        executor_socket: leave backends to the external executor at this Unix socket.
    """

    controller_url: ControllerUrl
    cluster: ClusterName
    name: NodeName | None = None
    ip: str = "127.0.0.1"
    pool: str = ""
    db_path: Path | None = None
    terminate_on_exit: bool = False
    executor_socket: Path | None = None

    @property
    def backends_outlive_it(self) -> bool:
        """Whether backends go on when the drone ends. Without a file nothing would know of them any more."""
        return self.db_path is not None and not self.terminate_on_exit

    @property
    def backends_folder(self) -> Path | None:
        """Where files of backends are kept, their output among them: beside the state store."""
        return None if self.db_path is None else self.db_path.with_name(f"{self.db_path.name}-backends")

    @property
    def watchdog_place(self) -> Path | None:
        """The symbolic link that names the watchdog of the state store. None: no watchdog outlives the drone."""
        return None if self.db_path is None else self.db_path.resolve().with_name(f"{self.db_path.name}.watchdog")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSettings(RuntimeSettings):
    """Settings of an external executor.

    Attributes:
        socket: the Unix socket to listen at.
    """

    socket: Path
    # Nothing is remembered here: backends end with their executor.
    backends_outlive_it: ClassVar[bool] = False
    db_path: ClassVar[None] = None
    backends_folder: ClassVar[None] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyLimits:
    """How long a proxy waits, in seconds. A quiet WebSocket is one in use and has no limit.

    Attributes:
        head_s: from the first byte of a request to the end of its head; a new connection is given this for its first.
        idle_s: between two requests of one connection. Browsers close theirs before.
        connect_s: for a backend to accept a connection.
        body_s: while bytes of a body could be transferred and are not, because the client does not send or because one
            side does not read. Waiting for a response does not count: long polls and event streams are quiet. The same
            limit holds for a tunnel that is half-closed or of which a side does not read.
        peer_lost_s: the kernel closes a connection whose peer does not acknowledge for so long. Must be longer than
            the keepalive probes of `plane.proxy.data_plane.lost_peers` take.
        sweep_interval_s: between two checks of all deadlines.
        half_closed_s, closing_s, linger_s, first_request_s: no options; see
            `plane.decisions.http.exchange_timeouts.ExchangeTimeouts`.
        waiting_page_after_s: no option. A backend that starts within this time shows no waiting page before.
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
        """When the kernel gives up a peer: not before the proxy itself gives up one that does not read."""
        return max(self.peer_lost_s, 2 * self.body_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeSettings:
    """How a proxy orders the certificate of its cluster.

    Attributes:
        endpoint: URL of the CA's directory.
        email: where the CA writes to.
        eab: key id and key of an external account binding, if the CA wants one.
        ca_file: PEM of a private CA to trust when talking to ``endpoint``, beside what the system trusts.
        name_server: address and port of the only name server to ask whether a challenge's value is there. None: those
            of the zone.
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
        cluster: the host name (and port) under which browsers reach this proxy.
        name: this proxy's name, ``px-…``.
        public_hosts: further names, with their ports, that stand for the cluster's.
        host, http_port: where to listen for plain HTTP. Port 0: any free one.
        https_port: where to listen for TLS; the other port then only redirects. None: plain HTTP alone.
        cert_path: JSON with the certificate's chain and key. tls_pair: the two as PEM files.
        acme: how the certificate is ordered. None: it is not.
        root_redirect_url: where ``/`` leads. None: 400.
        workers: processes that share the ports.
        metrics_host, metrics_port: where Prometheus reads metrics, of each worker at the next port. None: nowhere.
        trusted_proxies: networks of load balancers in front, whose word on their clients is believed.
        proxy_protocol: a connection of a trusted proxy begins with a header of the PROXY protocol.
        waiting_page: show a browser a page that waits while its backend starts, instead of a blank one.
        limits, http_limits: how long it waits, and how large parts of a message may be.
    """

    controller_url: ControllerUrl
    cluster: ClusterName
    name: NodeName
    public_hosts: tuple[str, ...] = ()
    host: str = "0.0.0.0"  # noqa: S104 - browsers come from elsewhere
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
    limits: ProxyLimits = ProxyLimits()
    http_limits: HttpLimits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSettings:
    """Settings of a DNS server.

    Attributes:
        controller_url: the controller to register with.
        name: this server's name, ``ns-…``.
        zone: the zone that is delegated to it. None: ``_acme-challenge.{cluster}`` of any cluster (for tests).
        hosts, port: where to listen, UDP and TCP. Port 0: any free one.
    """

    controller_url: ControllerUrl
    name: NodeName
    zone: str | None = None
    hosts: tuple[str, ...] = ("0.0.0.0",)  # noqa: S104 - resolvers come from elsewhere
    port: int = 53

    @staticmethod
    def all_hosts() -> tuple[str, ...]:
        """All addresses of the machine; those of IPv6 only where it has any."""
        return ("0.0.0.0", "::") if socket.has_dualstack_ipv6() else ("0.0.0.0",)  # noqa: S104 - as above
