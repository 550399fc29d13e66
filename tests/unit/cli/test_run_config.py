"""A file of `plane run-config` sets every setting of its component, and what is wrong in it is named by its field."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.commands import run
from plane.cli.run_config_file import RunConfig
from plane.cli.run_config_options import FIELD_OF_OPTION, with_fields
from plane.cli.run_config_settings import Settings, settings_of
from plane.decisions.backends.port_selection import PortRange
from plane.decisions.http.limits import HttpLimits
from plane.decisions.http.trusted_proxies import parse_networks
from plane.protocol import codec
from plane.protocol.errors import ConfigurationError, MessageError
from plane.protocol.names import ClusterName, ControllerName, NodeName
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
from plane.transport.controller_url import ControllerUrl

FILE = Path("/etc/plane/file.json")
# Of `plane dev` alone: no option of a component sets them.
NOT_FOR_OPERATORS = {"fixed_api_keys", "installation", "limits", "public_hosts", "owns_database"}


def settings(document: dict[str, Any], **environment: str) -> Settings:
    return settings_of(codec.decode(codec.encode(document), RunConfig), FILE, environment)


DOCKER = {
    "runtime": "runsc",
    "log_config": {"Type": "local"},
    "mount_base": "/m",
    "auto_prune": True,
    "cleanup_min_age": 60,
    "socket": "/d.sock",
}
PROCESS = {"expose": ["/etc"], "hide": ["/h"], "backend_user": "u", "backend_ports": "20000-20010"}
BACKENDS = {"log_limit_bytes": 200_000, "soft_terminate_grace_seconds": 7, "startup_timeout_seconds": 8}
RUNTIME: dict[str, Any] = {
    "docker_socket": Path("/d.sock"),
    "docker_runtime": "runsc",
    "log_config": {"Type": "local"},
    "mount_base": Path("/m"),
    "auto_prune_images": True,
    "auto_prune_containers_older_than_s": 60.0,
    "expose": (Path("/etc"),),
    "hide": (Path("/h"), FILE),
    "backend_user": "u",
    "backend_ports": PortRange(20_000, 20_010),
    "log_limit_bytes": 200_000,
    "soft_terminate_grace_s": 7.0,
    "startup_timeout_s": 8.0,
}
NODE = {"controller_url": "http://c", "cluster": "c"}
URL = ControllerUrl("http://c")

WHOLE: list[tuple[dict[str, Any], Settings]] = [
    (
        {
            "Controller": {
                "db_url": "postgresql://d",
                "bind_addr": "0.0.0.0:80",
                "id": "co-a",
                "controller_url": "http://c/",
                "default_cluster": "c",
                "cleanup_min_age_days": 30,
                "cleanup_batch_size": 50,
                "forward_auth": "http://auth",
                "best_of": 3,
                "api_key_file": "/k",
                "allowed_hosts": ["h"],
                "event_retention_days": 30,
                "webhook_allowed_networks": ["10.0.0.0/8"],
            }
        },
        ControllerSettings(
            db="postgresql://d",
            name=ControllerName("co-a"),
            host="0.0.0.0",
            port=80,
            controller_url="http://c",
            default_cluster=ClusterName("c"),
            cleanup_min_age_days=30,
            cleanup_batch_size=50,
            forward_auth="http://auth",
            best_of=3,
            api_key_file=Path("/k"),
            allowed_hosts=("h",),
            event_retention_days=30,
            webhook_allowed_networks=(ipaddress.ip_network("10.0.0.0/8"),),
        ),
    ),
    (
        {
            "Drone": {
                **NODE,
                "name": "dr-a",
                "pool": "p",
                "ip": "10.0.0.1",
                "db_path": "/d",
                "cleanup_min_age": None,
                "terminate_on_exit": True,
                "metrics_port": 9092,
                "metrics_host": "10.0.0.2",
                "executor_config": {"auto": {"docker": DOCKER, "process": PROCESS}},
                "backends": BACKENDS,
            }
        },
        DroneSettings(
            controller_url=URL,
            cluster=ClusterName("c"),
            name=NodeName("dr-a"),
            pool="p",
            ip="10.0.0.1",
            db_path=Path("/d"),
            terminate_on_exit=True,
            metrics_port=9092,
            metrics_host="10.0.0.2",
            **RUNTIME,
        ),
    ),
    (
        {
            "Executor": {
                "socket_path": "/s",
                "executor_config": {"auto": {"docker": DOCKER, "process": PROCESS}},
                "backends": BACKENDS,
            }
        },
        ExecutorSettings(socket=Path("/s"), **RUNTIME),
    ),
    (
        {
            "Proxy": {
                **NODE,
                "name": "px-a",
                "cert_path": "/c",
                "port_config": {"http_port": 80, "https_port": 443, "host": "127.0.0.2"},
                "acme_config": {
                    "endpoint": "https://ca",
                    "mailto_email": "mailto:a@b",
                    "acme_eab_keypair": {"key_id": "k", "key": "c2VjcmV0"},
                    "ca_file": __file__,
                    "name_server": "127.0.0.1:54",
                },
                "root_redirect_url": "https://r",
                "workers": 2,
                "metrics_port": 9000,
                "metrics_host": "127.0.0.3",
                "waiting_page": True,
                "trusted_proxies": ["10.0.0.0/8"],
                "proxy_protocol": True,
                "timeouts": {"head": 1, "idle": 2, "connect": 3, "body": 4},
                "http_limits": {"head_bytes": 1, "target_bytes": 2, "header_fields": 3, "chunk_line_bytes": 4},
            }
        },
        ProxySettings(
            controller_url=URL,
            cluster=ClusterName("c"),
            name=NodeName("px-a"),
            host="127.0.0.2",
            http_port=80,
            https_port=443,
            cert_path=Path("/c"),
            acme=AcmeSettings(
                endpoint="https://ca",
                email="a@b",
                eab=("k", b"secret"),
                ca_file=Path(__file__),
                name_server=("127.0.0.1", 54),
            ),
            root_redirect_url="https://r",
            workers=2,
            metrics_port=9000,
            metrics_host="127.0.0.3",
            waiting_page=True,
            trusted_proxies=parse_networks(["10.0.0.0/8"]),
            proxy_protocol=True,
            limits=ProxyLimits(head_s=1.0, idle_s=2.0, connect_s=3.0, body_s=4.0),
            http_limits=HttpLimits(head_bytes=1, target_bytes=2, fields=3, chunk_line_bytes=4),
        ),
    ),
    (
        {
            "Dns": {
                "controller_url": "http://c",
                "name": "ns-a",
                "port": 5353,
                "zone": "z",
                "hosts": ["127.0.0.1", "::1"],
                "metrics_port": 9093,
                "metrics_host": "10.0.0.4",
            }
        },
        DnsSettings(
            controller_url=URL,
            name=NodeName("ns-a"),
            port=5353,
            zone="z",
            metrics_port=9093,
            metrics_host="10.0.0.4",
            hosts=("127.0.0.1", "::1"),
        ),
    ),
]
COMPONENTS = [next(iter(document)) for document, _ in WHOLE]


@pytest.mark.parametrize(("document", "expected"), WHOLE, ids=COMPONENTS)
def test_every_field_is_a_setting(document: dict[str, Any], expected: Settings) -> None:
    assert settings(document) == expected


# Set by other documents of these tests: a proxy has one kind of certificate, a drone one runtime. Traces are switched
# on by the environment alone.
ELSEWHERE = {"tls_pair", "runtime", "executor_socket", "traces"}


@pytest.mark.parametrize(("document", "expected"), WHOLE, ids=COMPONENTS)
def test_the_environment_switches_traces_on(document: dict[str, Any], expected: Settings) -> None:
    with_collector = settings(document, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318")
    assert getattr(expected, "traces", None) in (False, None)
    assert getattr(with_collector, "traces", None) is (True if hasattr(expected, "traces") else None)


@pytest.mark.parametrize(("document", "expected"), WHOLE, ids=COMPONENTS)
def test_the_whole_documents_set_everything_that_a_component_has(document: dict[str, Any], expected: Settings) -> None:
    defaults = {
        field.name: field.default if field.default is not dataclasses.MISSING else None
        for field in dataclasses.fields(expected)
    }
    same = {name for name, default in defaults.items() if getattr(expected, name) == default}
    assert same <= NOT_FOR_OPERATORS | ELSEWHERE


def test_certificates_runtimes_and_sockets_by_themselves() -> None:
    proxy = settings(
        {
            "Proxy": {
                **NODE,
                "tls_cert": "/c.pem",
                "tls_key": "/k.pem",
                "port_config": {"http_port": 80, "https_port": 443},
            }
        }
    )
    assert isinstance(proxy, ProxySettings)
    assert proxy.tls_pair == (Path("/c.pem"), Path("/k.pem"))
    for config, kind in (
        ({"docker": DOCKER}, RuntimeKind.DOCKER),
        ({"process": PROCESS}, RuntimeKind.PROCESS),
        ({"auto": {}}, RuntimeKind.AUTO),
        (None, RuntimeKind.AUTO),
    ):
        drone = settings({"Drone": {**NODE, "executor_config": config}})
        assert isinstance(drone, DroneSettings)
        assert drone.runtime is kind
    drone = settings({"Drone": {**NODE, "executor_config": {"unix_socket": {"socket_path": "/s"}}}})
    assert isinstance(drone, DroneSettings)
    assert drone.executor_socket == Path("/s")
    assert drone.name is None


def test_what_is_left_out_is_as_without_its_option() -> None:
    controller = settings({"Controller": {"db_url": "x"}})
    assert isinstance(controller, ControllerSettings)
    assert controller == ControllerSettings(db="x", name=controller.name)
    proxy = settings({"Proxy": NODE})
    assert isinstance(proxy, ProxySettings)
    assert proxy == ProxySettings(controller_url=URL, cluster=ClusterName("c"), name=proxy.name)
    drone = settings({"Drone": NODE})
    assert drone == DroneSettings(controller_url=URL, cluster=ClusterName("c"), hide=(FILE,))


def test_variables_stand_in_for_fields_as_for_options() -> None:
    controller = settings({"Controller": {"db_url": "x"}}, PLANE_API_KEY_FILE="/keys")
    assert isinstance(controller, ControllerSettings)
    assert controller.api_key_file == Path("/keys")
    acme = {"endpoint": "https://ca", "mailto_email": "a@b", "acme_eab_keypair": {"key_id": "k"}}
    document = {"Proxy": {**NODE, "port_config": {"http_port": 80, "https_port": 443}, "acme_config": acme}}
    proxy = settings(document, PLANE_ACME_EAB_HMAC_KEY="c2VjcmV0")
    assert isinstance(proxy, ProxySettings)
    assert proxy.acme is not None
    assert proxy.acme.eab == ("k", b"secret")


def fields(kind: Any, prefix: str = "") -> set[str]:
    """The paths of all fields that hold no others."""
    found = set()
    for field in msgspec.structs.fields(kind):
        path = prefix + field.encode_name
        inner = [
            part
            for part in (field.type, *getattr(field.type, "__args__", ()))
            if isinstance(part, type) and issubclass(part, msgspec.Struct)
        ]
        found |= {each for part in inner for each in fields(part, f"{path}.")} or {path}
    return found


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_option_has_its_field_and_every_field_its_option(component: str) -> None:
    text = run(component.lower(), "--help", COLUMNS="200").out
    offered = set(re.findall(r"--[a-z][a-z-]+", text)) - {"--help", "--version"}
    offered = {word for word in offered if not word.startswith("--no-")}
    assert offered == set(FIELD_OF_OPTION[component])
    kind = next(field.type for field in msgspec.structs.fields(RunConfig) if field.encode_name == component)
    there = fields(kind.__args__[0])
    # Without an option: ignored in the original too. Both kinds of backends have a folder for mounts.
    there = {path.replace("executor_config.auto.", "executor_config.") for path in there} - {"cleanup_min_age"}
    there = {"mount_base" if path.endswith("mount_base") else path for path in there}
    assert there == set(FIELD_OF_OPTION[component].values()) - {"executor_config"}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({}, "$"),
        ({"Controller": {}}, "db_url"),
        ({"Controller": {"db_url": 1}}, "$.Controller.db_url"),
        ({"Controller": {"db_url": "x", "best_off": 1}}, "best_off"),
        ({"Controller": {"db_url": "x", "best_of": 0}}, "$.Controller.best_of"),
        (
            {"Proxy": {"controller_url": "x", "cluster": "c", "port_config": {"http_port": 70000}}},
            "port_config.http_port",
        ),
        ({"Proxy": {**NODE, "timeouts": {"head": 0}}}, "$.Proxy.timeouts.head"),
        ({"Executor": {"socket_path": "/s", "executor_config": {"unix_socket": {"socket_path": "/t"}}}}, "unix_socket"),
        ({"Nonsense": {}}, "Nonsense"),
    ],
)
def test_what_has_another_shape_is_named(document: dict[str, Any], path: str) -> None:
    with pytest.raises(MessageError, match=path.replace("$", r"\$").replace(".", r"\.")):
        settings(document)


ACME = {"endpoint": "https://ca", "mailto_email": "a@b"}
TLS = {"http_port": 80, "https_port": 443}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"Controller": {"db_url": "x", "bind_addr": "localhost"}}, "bind_addr: 'localhost' is not of the form"),
        ({"Controller": {"db_url": "x", "forward_auth": "y"}}, "forward_auth: 'y' is not of the form"),
        ({"Controller": {"db_url": "x", "id": "dr-a"}}, "id: name 'dr-a'"),
        (
            {"Drone": {**NODE, "executor_config": {"process": {"backend_ports": "9-1"}}}},
            "backend_ports: '9-1' is not a range",
        ),
        (
            {"Drone": {**NODE, "executor_config": {"process": {"expose": ["/no/such"]}}}},
            "executor_config.process.expose: /no/such does not exist",
        ),
        (
            {"Drone": {**NODE, "executor_config": {"auto": {"docker": DOCKER, "process": {"mount_base": "/n"}}}}},
            "executor_config.auto: mount_base is one folder",
        ),
        ({"Proxy": {**NODE, "port_config": TLS}}, "port_config.https_port needs a certificate: cert_path"),
        ({"Proxy": {**NODE, "cert_path": "/c"}}, "a certificate needs port_config.https_port"),
        ({"Proxy": {**NODE, "proxy_protocol": True}}, "proxy_protocol needs trusted_proxies"),
        ({"Proxy": {**NODE, "trusted_proxies": ["x"]}}, "trusted_proxies: 'x'"),
        ({"Proxy": {**NODE, "tls_cert": "/c"}}, "tls_cert and tls_key go together"),
        (
            {"Proxy": {**NODE, "port_config": TLS, "acme_config": {**ACME, "endpoint": "ca"}}},
            "acme_config.endpoint: 'ca' is not an https",
        ),
        (
            {"Proxy": {**NODE, "port_config": TLS, "acme_config": {**ACME, "acme_eab_keypair": {"key_id": "k"}}}},
            "acme_config.acme_eab_keypair.key_id and acme_config.acme_eab_keypair.key go together",
        ),
    ],
)
def test_what_cannot_be_is_named_by_its_field(document: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(document)
    (component,) = document
    text = with_fields(component, str(caught.value))
    assert said in text
    assert "--" not in text
