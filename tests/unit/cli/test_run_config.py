"""A file of `plane run-config` is a command line: every field has its flag, and every flag exists."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.commands import run
from plane.cli.run_config import FLAGS, arguments_of
from plane.cli.run_config_file import RunConfig
from plane.protocol import codec
from plane.protocol.errors import ConfigurationError, MessageError


def arguments(document: dict[str, Any]) -> list[str]:
    return arguments_of(codec.decode(codec.encode(document), RunConfig))


@pytest.mark.parametrize(
    ("document", "line"),
    [
        (
            {
                "Controller": {
                    "db_url": "postgresql://d",
                    "bind_addr": "0.0.0.0:80",
                    "id": "co-a",
                    "controller_url": "http://c",
                    "default_cluster": "c",
                    "cleanup_min_age_days": 30,
                    "cleanup_batch_size": 50,
                    "forward_auth": "http://auth",
                    "best_of": 3,
                }
            },
            "controller --db=postgresql://d --host=0.0.0.0 --port=80 --name=co-a --controller-url=http://c"
            " --default-cluster=c --cleanup-min-age-days=30 --cleanup-batch-size=50"
            " --forward-auth=http://auth --best-of=3",
        ),
        (
            {
                "Drone": {
                    "name": "dr-a",
                    "controller_url": "http://c",
                    "cluster": "c",
                    "pool": "p",
                    "ip": "10.0.0.1",
                    "db_path": "/d",
                    "cleanup_min_age": None,
                    "executor_config": {
                        "docker": {
                            "runtime": "runsc",
                            "log_config": {"Type": "local"},
                            "mount_base": "/m",
                            "auto_prune": True,
                            "cleanup_min_age": 60,
                        }
                    },
                }
            },
            "drone --controller-url=http://c --cluster=c --name=dr-a --pool=p --ip=10.0.0.1 --db=/d --runtime=docker"
            ' --docker-runtime=runsc --log-config={"Type":"local"} --mount-base=/m --auto-prune-images'
            " --auto-prune-containers-older-than-seconds=60.0",
        ),
        (
            {
                "Drone": {
                    "controller_url": "http://c",
                    "cluster": "c",
                    "executor_config": {"unix_socket": {"socket_path": "/s"}},
                }
            },
            "drone --controller-url=http://c --cluster=c --executor-socket=/s",
        ),
        (
            {
                "Proxy": {
                    "name": "px-a",
                    "controller_url": "http://c",
                    "cluster": "c",
                    "cert_path": "/c",
                    "port_config": {"http_port": 80, "https_port": 443},
                    "acme_config": {
                        "endpoint": "https://ca",
                        "mailto_email": "mailto:a@b",
                        "acme_eab_keypair": {"key_id": "k", "key": "s"},
                    },
                    "root_redirect_url": "https://r",
                }
            },
            "proxy --controller-url=http://c --cluster=c --name=px-a --cert-path=/c --https"
            " --http-port=80 --https-port=443 --acme-endpoint=https://ca --acme-email=a@b"
            " --acme-eab-kid=k --acme-eab-hmac-key=s"
            " --root-redirect-url=https://r",
        ),
        (
            {"Dns": {"controller_url": "http://c", "name": "ns-a", "port": 5353, "zone": "z"}},
            "dns --controller-url=http://c --name=ns-a --port=5353 --zone=z",
        ),
    ],
    ids=["Controller", "Drone", "Drone with a socket", "Proxy", "Dns"],
)
def test_a_file_as_the_original_has_it(document: dict[str, Any], line: str) -> None:
    assert arguments(document) == line.split()


@pytest.mark.parametrize("component", FLAGS)
def test_every_flag_is_one_of_the_command(component: str) -> None:
    offered = run(component.lower(), "--help", COLUMNS="200").out
    assert [flag for flag in FLAGS[component].values() if flag and f"{flag} " not in offered] == []


def test_every_field_has_its_place() -> None:
    def fields(kind: Any, prefix: str = "") -> set[str]:
        found = set()
        for field in msgspec.structs.fields(kind):
            found.add(prefix + field.encode_name)
            for part in (field.type, *getattr(field.type, "__args__", ())):
                if isinstance(part, type) and issubclass(part, msgspec.Struct):
                    found |= fields(part, f"{prefix}{field.encode_name}.")
        return found

    for component in msgspec.structs.fields(RunConfig):
        kind = component.type.__args__[0]
        assert fields(kind) == set(FLAGS[component.encode_name])


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({}, "$"),
        ({"Controller": {}}, "db_url"),
        ({"Controller": {"db_url": 1}}, "$.Controller.db_url"),
        ({"Controller": {"db_url": "x", "best_off": 1}}, "best_off"),
        (
            {"Proxy": {"controller_url": "x", "cluster": "c", "port_config": {"http_port": 70000}}},
            "port_config.http_port",
        ),
        ({"Nonsense": {}}, "Nonsense"),
    ],
)
def test_what_is_wrong_is_named(document: dict[str, Any], path: str) -> None:
    with pytest.raises(MessageError, match=path.replace("$", r"\$").replace(".", r"\.")):
        arguments(document)


def test_an_address_without_port_is_named() -> None:
    with pytest.raises(ConfigurationError, match="bind_addr"):
        arguments({"Controller": {"db_url": "x", "bind_addr": "localhost"}})
