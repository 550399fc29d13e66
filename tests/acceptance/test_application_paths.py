"""Applications that use absolute paths, through the real program: what the browser is told, and the ways out."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from harness.clusters import Cluster, dev_cluster, until
from harness.commands import run

# Redirects `/` to `/lab`, with a cookie; says everything else back.
APPLICATION = """
import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({"path": self.path, "fields": {k.lower(): v for k, v in self.headers.items()}}).encode()
        self.send_response(302 if self.path == "/" else 200)
        if self.path == "/":
            self.send_header("Location", "/lab")
            self.send_header("Set-Cookie", "_xsrf=1; Path=/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
PUBLIC = "forwarded.example"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dev_cluster(tmp_path_factory.mktemp("dev"), "--runtime", "process", "--public-host", PUBLIC) as running:
        yield running


def start(cluster: Cluster, **options: Any) -> dict[str, Any]:
    answer = cluster.connect(spawn_config={"executable": {"command": [sys.executable, "-c", APPLICATION]}, **options})
    cluster.until_status(answer["backend_id"], "ready")
    return answer


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    text: str


def visit(cluster: Cluster, path: str, host: str | None = None, **fields: str) -> Answer:
    """What a browser gets that does not follow redirects."""
    names = {"Host": host or f"localhost:{cluster.proxy_port}", "Accept": "text/html", **fields}
    with closing(http.client.HTTPConnection("127.0.0.1", cluster.proxy_port, timeout=20)) as connection:
        connection.request("GET", path, headers=names)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read().decode())


def test_a_browser_that_follows_an_absolute_path_is_told_so(cluster: Cluster) -> None:
    answer = start(cluster)
    path = f"/{answer['token']}/"
    assert visit(cluster, path).headers["Location"] == "/lab"
    told = visit(cluster, "/lab", Referer=answer["url"])
    assert told.status == 410
    assert "<title>The application used an absolute path</title>" in told.text
    log = cluster.programs["dev"].log
    until(lambda: "application used an absolute path" in log.read_text())
    line = next(line for line in log.read_text().splitlines() if "application used an absolute path" in line)
    assert answer["backend_id"] in line
    assert "/lab" in line
    assert answer["token"] not in log.read_text()
    ended = visit(cluster, f"/{'x' * 43}/")
    assert "<title>This session has ended</title>" in ended.text


def test_a_prefix_is_told_and_put_before_redirects_and_cookies(cluster: Cluster) -> None:
    answer = start(cluster, rewrite_prefix=True)
    prefix = f"/{answer['token']}"
    redirected = visit(cluster, f"{prefix}/")
    assert redirected.headers["Location"] == f"{prefix}/lab"
    assert redirected.headers["Set-Cookie"] == f"_xsrf=1; Path={prefix}"
    followed = visit(cluster, f"{prefix}/lab").text
    assert f'"x-forwarded-prefix": "{prefix}"' in followed


def test_a_token_in_a_cookie_lets_absolute_paths_work_until_it_is_revoked(cluster: Cluster) -> None:
    refused = cluster.call("POST", "/ctrl/connect", {"spawn_config": {"executable": {}, "token_in_cookie": True}})
    assert refused.status == 400
    answer = cluster.connect(
        spawn_config={
            "executable": {"command": [sys.executable, "-c", APPLICATION]},
            "subdomain": "own",
            "token_in_cookie": True,
        },
        user="ann",
    )
    cluster.until_status(answer["backend_id"], "ready")
    host = f"own.localhost:{cluster.proxy_port}"
    first = visit(cluster, f"/{answer['token']}/?q", host)
    assert (first.status, first.headers["Location"]) == (302, "/?q")
    cookie = first.headers["Set-Cookie"].partition(";")[0]
    assert visit(cluster, "/", host, Cookie=cookie).headers["Location"] == "/lab"
    seen = visit(cluster, "/lab", host, Cookie=cookie)
    assert seen.status == 200
    assert '"x-verified-username": "ann"' in seen.text
    assert answer["token"] not in seen.text
    assert visit(cluster, "/lab", host).status == 410
    revoked = cluster.call("POST", "/ctrl/revoke", {"backend_id": answer["backend_id"], "user": "ann"})
    assert revoked.status == 200

    def leads_nowhere() -> bool:
        try:
            return visit(cluster, "/lab", host, Cookie=cookie).status == 410
        except (http.client.HTTPException, ConnectionError):
            # This one was under way, and cut.
            return False

    until(leads_nowhere)


@pytest.mark.parametrize("name", ["http://forwarded.example", "a b", "forwarded.example:port"])
def test_a_public_host_that_is_none_is_refused_before_anything_starts(name: str) -> None:
    done = run("dev", "--public-host", name)
    assert done.status == 1
    assert "--public-host" in done.err
    assert "HOST or HOST:PORT" in done.err


def test_loopback_addresses_and_public_hosts_are_served_and_others_are_named(cluster: Cluster) -> None:
    path = f"/{start(cluster)['token']}/x"
    for host in (f"127.0.0.1:{cluster.proxy_port}", f"[::1]:{cluster.proxy_port}", PUBLIC):
        assert visit(cluster, path, host).status == 200
    wrong = visit(cluster, path, "other.example")
    assert wrong.status == 403
    right = f"localhost:{cluster.proxy_port}"
    assert f"This request is for other.example. The right address begins with {right}." in wrong.text
    lines = cluster.programs["dev"].log.read_text().splitlines()
    assert any("host=other.example" in line and f"expected={right}" in line for line in lines)
