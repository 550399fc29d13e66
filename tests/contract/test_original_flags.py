"""Every command, flag and argument of Plane 0.5.5 is where scripts written for it look for it."""

from __future__ import annotations

import pytest

from harness.commands import run

# Command to its flags and, in capitals, its arguments.
ORIGINAL = {
    "controller": "--db --host --port --controller-url --default-cluster --cleanup-min-age-days --forward-auth"
    " --best-of",
    "drone": "--controller-url --cluster --name --ip --db --docker-runtime --executor-socket --log-config --pool"
    " --mount-base --auto-prune-images --auto-prune-containers-older-than-seconds",
    "proxy": "--controller-url --cluster --name --https --http-port --https-port --cert-path --acme-endpoint"
    " --acme-email --acme-eab-kid --acme-eab-hmac-key --root-redirect-url",
    "dns": "--controller-url --zone --port --name",
    "run-config": "FILE",
    "migrate": "--db",
    "version": "",
    "admin connect": "--controller --image --cluster --key --immediate --max-idle-seconds --id --static-token --pool"
    " --mount --subdomain",
    "admin terminate": "--controller BACKEND --hard --immediate",
    "admin drain": "--controller --cluster --drone",
    "admin put-dummy-dns": "--controller --cluster",
    "admin status": "--controller",
    "admin cluster-state": "--controller CLUSTER",
    "admin backend-status": "--controller BACKEND",
    "db events": "--db",
    "db list-nodes": "--db --all --cluster",
    "db list-backends": "--db",
    "db termination-candidates": "--db --cluster --drone",
    "db prevent-renew": "--db BACKEND",
    "db cleanup": "--db --min-age-days BATCH",
    "db mark-backend-lost": "--db BACKENDS --drone --cluster",
}
DEFAULTS = {
    "controller": {"--host": "127.0.0.1", "--port": "8080", "--best-of": "2"},
    "drone": {"--ip": "127.0.0.1", "--auto-prune-containers-older-than-seconds": "0"},
    "dns": {"--port": "53"},
    "admin connect": {"--max-idle-seconds": "500"},
}


@pytest.mark.parametrize("command", ORIGINAL)
def test_flags_are_where_they_were(command: str) -> None:
    text = run(*command.split(), "--help", COLUMNS="300").out
    assert [word for word in ORIGINAL[command].split() if f" {word} " not in text and f" [{word}] " not in text] == []
    for flag, value in DEFAULTS.get(command, {}).items():
        line = next(line for line in text.splitlines() if line.startswith("│") and f" {flag} " in line)
        assert f"[default: {value}" in line, line


def test_dns_requires_its_zone() -> None:
    done = run("dns", "--controller-url", "http://127.0.0.1:1")
    assert done.status == 2
    assert "--zone" in done.out + done.err
