"""Everything fails, at every level of logging: no log has a token, a key, a variable of a backend, or a password."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from harness.clusters import Cluster, exposed, free_port, until
from harness.program import PLANE, program

CLUSTER = "localhost"
# Each with another end, so that a failure says which one it was.
PASSWORD, VARIABLE, AUTH, ARGUMENT = (f"planted-{name}" for name in ("password", "variable", "auth", "argument"))
TABLES = ("token", "backend_key", "backend", "backend_action")


def key(folder: Path, role: str) -> str:
    command = [str(PLANE), "api-key", role, "--role", role, "--file", str(folder / "keys")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def connect(cluster: Cluster, name: str | None, command: list[str], *fields: tuple[str, str], **env: str) -> Any:
    """A connect request full of secrets; with further header fields it is aiohttp's."""
    executable = {"command": command, "env": {"SECRET": VARIABLE, **env}}
    body: dict[str, Any] = {"spawn_config": {"executable": executable}, "auth": {"secret": AUTH}, "user": "ada"}
    if name is not None:
        body["key"] = {"name": name}
    where = urlsplit(cluster.control_urls[0])
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {cluster.api_key}", **dict(fields)}
    connection.request("POST", "/ctrl/connect", json.dumps(body), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


@pytest.mark.parametrize("as_json", ["", "1"], ids=["text", "json"])
async def test_failures_everywhere_show_no_secret(postgres_url: str, tmp_path: Path, as_json: str) -> None:
    admin, node = key(tmp_path, "admin"), key(tmp_path, "node")
    db = postgres_url.replace("postgres@", f"postgres:{PASSWORD}@")
    assert PASSWORD in db
    port, proxy_port = free_port(), free_port()
    cluster = Cluster([f"http://127.0.0.1:{port}"], proxy_port, api_key=admin)
    logging = {"PLANE_LOG": "debug", "PLANE_LOG_JSON": as_json}
    name = f"{CLUSTER}:{proxy_port}"
    to = ["--controller-url", cluster.control_urls[0], "--cluster", name]
    control = ["controller", "--db", db, "--port", str(port), "--api-key-file", "keys", "--default-cluster", name]
    drone = ["drone", *to, "--runtime", "process", "--db", "drone.sqlite", "--terminate-on-exit", *exposed()]
    proxy = ["proxy", *to, "--host", "127.0.0.1", "--http-port", str(proxy_port)]
    secrets = [PASSWORD, VARIABLE, AUTH, ARGUMENT, admin, node]
    with contextlib.ExitStack() as stack:
        parts = [
            stack.enter_context(program(arguments, tmp_path, arguments[0], PLANE_CONTROLLER_KEY=node, **logging))
            for arguments in (control, drone, proxy)
        ]
        parts[0].says("controller listening")
        until(lambda: all(cluster.call("GET", f"/ctrl/c/{name}/state").json().values()))
        # Backends that do not start, that cannot, and that say what they know.
        for command in (["/bin/sh", "-c", f"env; exit 3; {ARGUMENT}"], ["/nowhere", ARGUMENT], ["a\0b"]):
            answer = connect(cluster, None, command)
            if "backend_id" in answer:
                cluster.until_status(answer["backend_id"], "terminated")
        connect(cluster, "k", ["x"], HUGE="x" * 200_000)
        serves = ["/bin/sh", "-c", "exec python3 -m http.server --bind 127.0.0.1 $PORT"]
        served = connect(cluster, "served", serves)
        cluster.until_status(served["backend_id"], "ready")
        assert cluster.get(served["url"]).status == 200
        secrets += [served["token"], served["secret_token"]]
        unknown = cluster.get(served["url"].replace(served["token"], "x" * 43))
        assert unknown.status != 200
        again = connect(cluster, "served", serves)
        secrets += [again["token"], again["secret_token"]]
        # Statements that fail: in the fast path, in aiohttp, in loops, and for the proxy.
        sql = await asyncpg.connect(postgres_url)
        try:
            for table in TABLES:
                await sql.execute(f"ALTER TABLE {table} RENAME TO away")
                for fields in ((), (("X-Other", "1"),)):
                    connect(cluster, "served", serves, *fields)
                    connect(cluster, None, serves, *fields)
                with contextlib.suppress(OSError):
                    cluster.get(again["url"], timeout_s=1)
                cluster.call("POST", "/ctrl/b/revoke", {"backend_id": served["backend_id"], "user": "ada"})
                await sql.execute(f"ALTER TABLE away RENAME TO {table}")
        finally:
            await sql.close()
        parts[0].says("request failed")
        # RequestRefused keys, bodies and bytes.
        connect(cluster, "k", serves, ("Authorization", f"Bearer {ARGUMENT}"))
        connect(cluster, "k", serves, ("Origin", f"http://{ARGUMENT}"))
        cluster.call("POST", "/ctrl/connect", {"spawn_config": {"executable": {"env": {"A": VARIABLE}}, "pool": 1}})
        # A program that cannot start.
        closed = db.replace(str(urlsplit(db).port), str(free_port()))
        with program(["controller", "--db", closed], tmp_path, "closed", **logging) as refused:
            assert refused.process.wait(60) == 1
        parts.append(refused)
        for part in parts[2:0:-1]:
            part.stop()
        parts[0].stop()
    for part in parts:
        # An origin that is refused is named, and no secret.
        said = (part.log.read_text() + part.out.read_text()).replace(f"http://{ARGUMENT}", "")
        assert said
        for secret in secrets:
            assert secret not in said, said[said.index(secret) - 2000 :][:2500]
