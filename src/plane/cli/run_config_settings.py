"""Converts a file of `plane run-config` into the settings of its component.

Errors of readers that the command line shares name options; `plane.cli.run_config_options` replaces them by fields.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from plane.cli.acme_arguments import acme_settings
from plane.cli.arguments import (
    cluster_name,
    controller_name,
    exposed_paths,
    host_argument,
    http_url,
    ip_address,
    node_name,
    public_url,
    trusted_networks,
    webhook_networks,
)
from plane.cli.certificate_options import check_certificate_options
from plane.cli.controller_access import controller_access, key_files
from plane.cli.run_config_file import (
    AutoExecutorConfig,
    BackendsConfig,
    ControllerConfig,
    DnsConfig,
    DockerExecutorConfig,
    DroneConfig,
    ExecutorComponentConfig,
    ExecutorConfig,
    HttpLimitsConfig,
    PortConfig,
    ProcessExecutorConfig,
    ProxyConfig,
    ProxyTimeoutsConfig,
    RunConfig,
    RuntimeConfig,
)
from plane.decisions.backends.port_selection import parse_port_range
from plane.decisions.http.limits import HttpLimits
from plane.decisions.trace_export import traces_are_exported
from plane.protocol.addresses import parse_socket_address
from plane.protocol.errors import ConfigurationError, MessageError
from plane.protocol.names import Prefix
from plane.settings import (
    AcmeSettings,
    ControllerSettings,
    DnsSettings,
    DroneSettings,
    ExecutorSettings,
    ProxyLimits,
    ProxySettings,
    RuntimeKind,
)

__all__ = ["Settings", "settings_of"]

T = TypeVar("T")

Settings = ControllerSettings | DroneSettings | ProxySettings | DnsSettings | ExecutorSettings

# Environment variables that are the default of a field, and of the option of the command.
API_KEY_FILE_VARIABLE = "PLANE_API_KEY_FILE"
EAB_KEY_VARIABLE = "PLANE_ACME_EAB_HMAC_KEY"


def settings_of(config: RunConfig, file: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of the file's component.

    Args:
        file: the configuration file, which backends of a drone must not read.

    Raises:
        ConfigurationError: names the field.
    """
    match config.content:
        case ControllerConfig() as controller:
            return _controller(controller, environment)
        case DroneConfig() as drone:
            return _drone(drone, file, environment)
        case ProxyConfig() as proxy:
            return _proxy(proxy, environment)
        case DnsConfig() as dns:
            return _dns(dns)
        case ExecutorComponentConfig() as executor:
            runtime = {**_runtime(executor.executor_config, file, None), **_backends(executor.backends)}
            return ExecutorSettings(socket=Path(executor.socket_path), **runtime)
    raise AssertionError("unreachable: every variant is one of these")


def _controller(config: ControllerConfig, environment: Mapping[str, str]) -> ControllerSettings:
    try:
        host, port = parse_socket_address(config.bind_addr)
    except MessageError:
        raise ConfigurationError(f"bind_addr: {config.bind_addr!r} is not of the form IP:PORT") from None
    defaults = ControllerSettings(db=config.db_url, name=controller_name(config.id))
    return ControllerSettings(
        db=config.db_url,
        name=defaults.name,
        host=host,
        port=port,
        controller_url=public_url(config.controller_url),
        default_cluster=cluster_name(config.default_cluster, "--default-cluster") if config.default_cluster else None,
        best_of=_either(config.best_of, defaults.best_of),
        cleanup_min_age_days=config.cleanup_min_age_days,
        cleanup_batch_size=_either(config.cleanup_batch_size, defaults.cleanup_batch_size),
        webhook_allowed_networks=webhook_networks(config.webhook_allowed_networks or ()),
        event_retention_days=_either(config.event_retention_days, defaults.event_retention_days),
        api_key_file=_path(config.api_key_file or environment.get(API_KEY_FILE_VARIABLE)),
        forward_auth=http_url(config.forward_auth, "--forward-auth") if config.forward_auth else None,
        allowed_hosts=tuple(host_argument(host, "--allowed-host") for host in config.allowed_hosts or ()),
        traces=traces_are_exported(environment),
    )


def _drone(config: DroneConfig, file: Path, environment: Mapping[str, str]) -> DroneSettings:
    key_file = _path(config.controller_key_file)
    executor = config.executor_config
    socket = None if executor is None or not executor.unix_socket else Path(executor.unix_socket.socket_path)
    return DroneSettings(
        controller_url=controller_access(config.controller_url, key_file),
        cluster=cluster_name(config.cluster),
        name=None if config.name is None else node_name(config.name, Prefix.DRONE),
        ip=ip_address(config.ip),
        pool=config.pool or "",
        db_path=_path(config.db_path),
        terminate_on_exit=bool(config.terminate_on_exit),
        executor_socket=socket,
        metrics_port=config.metrics_port,
        metrics_host=config.metrics_host or "127.0.0.1",
        traces=traces_are_exported(environment),
        **_runtime(None if socket is not None else executor, file, key_file),
        **_backends(config.backends),
    )


def _runtime(config: ExecutorConfig | RuntimeConfig | None, file: Path, key_file: Path | None) -> dict[str, Any]:
    """The fields of `plane.settings.RuntimeSettings` that say what runs backends."""
    kind = RuntimeKind.AUTO
    docker: DockerExecutorConfig | None = None
    process: ProcessExecutorConfig | None = None
    if config is not None:
        auto = config.auto or AutoExecutorConfig()
        docker, process = config.docker or auto.docker, config.process or auto.process
        kind = RuntimeKind.DOCKER if config.docker else RuntimeKind.PROCESS if config.process else RuntimeKind.AUTO
    settings: dict[str, Any] = {"runtime": kind}
    hide: tuple[Path, ...] = ()
    mount_bases = {each.mount_base for each in (docker, process) if each is not None and each.mount_base is not None}
    if len(mount_bases) > 1:
        raise ConfigurationError("executor_config.auto: mount_base is one folder, and two are named")
    settings["mount_base"] = Path(mount_bases.pop()) if mount_bases else None
    if docker is not None:
        settings |= {
            "docker_runtime": docker.runtime,
            "log_config": docker.log_config,
            "auto_prune_images": bool(docker.auto_prune),
            "auto_prune_containers_older_than_s": docker.cleanup_min_age or 0.0,
        }
        if docker.socket is not None:
            settings["docker_socket"] = Path(docker.socket)
    if process is not None:
        hide = tuple(map(Path, process.hide or ()))
        settings |= {
            "expose": exposed_paths(list(map(Path, process.expose or ()))),
            "backend_user": process.backend_user,
        }
        if process.backend_ports is not None:
            settings["backend_ports"] = parse_port_range(process.backend_ports)
    return {**settings, "hide": (*hide, file.resolve(), *key_files(key_file))}


def _backends(config: BackendsConfig | None) -> dict[str, Any]:
    config = config or BackendsConfig()
    return {
        "log_limit_bytes": config.log_limit_bytes,
        "soft_terminate_grace_s": config.soft_terminate_grace_seconds,
        "startup_timeout_s": config.startup_timeout_seconds,
    }


def _proxy(config: ProxyConfig, environment: Mapping[str, str]) -> ProxySettings:
    cert_path, tls_cert, tls_key = map(_path, (config.cert_path, config.tls_cert, config.tls_key))
    ports = config.port_config or PortConfig(http_port=9090)
    acme = _acme(config, environment)
    check_certificate_options(ports.https_port is not None, cert_path, tls_cert, tls_key, has_acme=acme is not None)
    timeouts = config.timeouts or ProxyTimeoutsConfig()
    limits = config.http_limits or HttpLimitsConfig()
    settings = ProxySettings(
        controller_url=controller_access(config.controller_url, _path(config.controller_key_file)),
        cluster=cluster_name(config.cluster),
        name=node_name(config.name, Prefix.PROXY),
        http_port=ports.http_port,
        https_port=ports.https_port,
        cert_path=cert_path,
        tls_pair=(tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None,
        acme=acme,
        root_redirect_url=config.root_redirect_url,
        workers=config.workers,
        metrics_port=config.metrics_port,
        waiting_page=config.waiting_page,
        traces=traces_are_exported(environment),
        trusted_proxies=trusted_networks(config.trusted_proxies or (), proxy_protocol=config.proxy_protocol),
        proxy_protocol=config.proxy_protocol,
        limits=ProxyLimits(
            head_s=timeouts.head, idle_s=timeouts.idle, connect_s=timeouts.connect, body_s=timeouts.body
        ),
        http_limits=HttpLimits(
            head_bytes=limits.head_bytes,
            target_bytes=limits.target_bytes,
            fields=limits.header_fields,
            chunk_line_bytes=limits.chunk_line_bytes,
        ),
    )
    return replace(
        settings,
        host=_either(ports.host, settings.host),
        metrics_host=_either(config.metrics_host, settings.metrics_host),
    )


def _acme(config: ProxyConfig, environment: Mapping[str, str]) -> AcmeSettings | None:
    acme = config.acme_config
    if acme is None:
        return None
    pair = acme.acme_eab_keypair
    return acme_settings(
        acme.endpoint,
        acme.mailto_email.removeprefix("mailto:"),
        None if pair is None else pair.key_id,
        None if pair is None else pair.key or environment.get(EAB_KEY_VARIABLE),
        _path(acme.ca_file),
        acme.name_server,
    )


def _dns(config: DnsConfig) -> DnsSettings:
    hosts = tuple(ip_address(host, "--host") for host in config.hosts or ())
    return DnsSettings(
        controller_url=controller_access(config.controller_url, _path(config.controller_key_file)),
        name=node_name(config.name, Prefix.ACME_DNS_SERVER),
        zone=config.zone,
        hosts=hosts or DnsSettings.all_hosts(),
        port=config.port,
        metrics_port=config.metrics_port,
        metrics_host=config.metrics_host or "127.0.0.1",
    )


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _either(value: T | None, default: T) -> T:
    return default if value is None else value
