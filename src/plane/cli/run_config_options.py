"""Maps options of a command to fields of `plane run-config`, for error messages and a test."""

from __future__ import annotations

import re

__all__ = ["FIELD_OF_OPTION", "with_fields"]

_NODE = {
    "--controller-url": "controller_url",
    "--controller-key-file": "controller_key_file",
    "--name": "name",
}
_METRICS = {"--metrics-port": "metrics_port", "--metrics-host": "metrics_host"}
_RUNTIME = {
    "--runtime": "executor_config",
    "--docker-socket": "executor_config.docker.socket",
    "--docker-runtime": "executor_config.docker.runtime",
    "--log-config": "executor_config.docker.log_config",
    "--mount-base": "mount_base",
    "--auto-prune-images": "executor_config.docker.auto_prune",
    "--auto-prune-containers-older-than-seconds": "executor_config.docker.cleanup_min_age",
    "--expose": "executor_config.process.expose",
    "--hide": "executor_config.process.hide",
    "--backend-user": "executor_config.process.backend_user",
    "--backend-ports": "executor_config.process.backend_ports",
    "--log-limit-bytes": "backends.log_limit_bytes",
    "--soft-terminate-grace": "backends.soft_terminate_grace_seconds",
    "--startup-timeout": "backends.startup_timeout_seconds",
}

FIELD_OF_OPTION: dict[str, dict[str, str]] = {
    "Controller": {
        "--db": "db_url",
        "--host": "bind_addr",
        "--port": "bind_addr",
        "--name": "id",
        "--controller-url": "controller_url",
        "--default-cluster": "default_cluster",
        "--cleanup-min-age-days": "cleanup_min_age_days",
        "--cleanup-batch-size": "cleanup_batch_size",
        "--forward-auth": "forward_auth",
        "--best-of": "best_of",
        "--api-key-file": "api_key_file",
        "--allowed-host": "allowed_hosts",
        "--event-retention-days": "event_retention_days",
        "--webhook-allow-network": "webhook_allowed_networks",
    },
    "Drone": {
        **_NODE,
        **_RUNTIME,
        "--cluster": "cluster",
        "--pool": "pool",
        "--ip": "ip",
        "--db": "db_path",
        "--terminate-on-exit": "terminate_on_exit",
        "--executor-socket": "executor_config.unix_socket.socket_path",
        **_METRICS,
    },
    "Executor": {**_RUNTIME, "--socket": "socket_path"},
    "Proxy": {
        **_NODE,
        "--cluster": "cluster",
        "--host": "port_config.host",
        "--http-port": "port_config.http_port",
        "--https-port": "port_config.https_port",
        "--https": "port_config.https_port",
        "--cert-path": "cert_path",
        "--tls-cert": "tls_cert",
        "--tls-key": "tls_key",
        "--acme-endpoint": "acme_config.endpoint",
        "--acme-email": "acme_config.mailto_email",
        "--acme-eab-kid": "acme_config.acme_eab_keypair.key_id",
        "--acme-eab-hmac-key": "acme_config.acme_eab_keypair.key",
        "--acme-ca": "acme_config.ca_file",
        "--acme-name-server": "acme_config.name_server",
        "--root-redirect-url": "root_redirect_url",
        "--workers": "workers",
        **_METRICS,
        "--waiting-page": "waiting_page",
        "--trusted-proxies": "trusted_proxies",
        "--proxy-protocol": "proxy_protocol",
        "--head-timeout": "timeouts.head",
        "--idle-timeout": "timeouts.idle",
        "--connect-timeout": "timeouts.connect",
        "--body-timeout": "timeouts.body",
        "--max-head-bytes": "http_limits.head_bytes",
        "--max-target-bytes": "http_limits.target_bytes",
        "--max-header-fields": "http_limits.header_fields",
        "--max-chunk-line-bytes": "http_limits.chunk_line_bytes",
    },
    "Dns": {**_NODE, "--zone": "zone", "--port": "port", "--host": "hosts", **_METRICS},
}


def with_fields(component: str, text: str) -> str:
    """Return an error's text with the options replaced by the fields of the component."""
    fields = FIELD_OF_OPTION[component]
    return re.sub(r"--[a-z-]+", lambda found: fields.get(found[0], found[0]), text)
