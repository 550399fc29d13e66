"""A backend's output over the API: the last lines, followed, after the end, after a restart of the drone; bounded."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from harness.clusters import Cluster, separate_parts, until
from harness.controllers import controller_api
from harness.fake_node import CLUSTER, FakeNode, fake_drone
from plane.client import BackendEnded, Plane

# Writes a line every 20 ms to both streams in turn, and answers HTTP.
WRITER = """
import itertools, os, sys, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()
    def do_GET(self):
        print("the last line", flush=True)
        os._exit(3)
    def log_message(self, *args):
        pass

def write():
    for number in itertools.count():
        print("line", number, flush=True, file=(sys.stdout, sys.stderr)[number % 2])
        time.sleep(0.02)

threading.Thread(target=write, daemon=True).start()
HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture(params=["process", "docker"])
def adopting(request: pytest.FixtureRequest, postgres_url: str, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose backends outlive their drone, with two controllers of which the drone has one."""
    docker = None
    if request.param == "docker":
        docker = (request.getfixturevalue("docker_engine"), request.getfixturevalue("docker_image"))
    with separate_parts(postgres_url, tmp_path, controllers=2, docker=docker, drone=()) as cluster:
        yield cluster


def lines(cluster: Cluster, backend: str, query: str = "", controller: int = 0) -> list[str]:
    """The texts of the lines, without their times."""
    answer = cluster.call("GET", f"/ctrl/b/{backend}/logs{query}", controller=controller)
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    rows = answer.body.decode().splitlines()
    times = [row.split(" ", 1)[0] for row in rows]
    assert times == sorted(times)
    assert all(len(time) == 24 and time.endswith("Z") for time in times)
    return [row.split(" ", 1)[1] for row in rows]


def numbers(rows: list[str]) -> list[int]:
    return [int(row.split()[1]) for row in rows if row.startswith("line")]


def test_last_lines_follow_and_after_the_end(adopting: Cluster) -> None:
    started = adopting.spawn("k", CODE=WRITER)
    backend = started["backend_id"]
    adopting.until_status(backend, "ready")
    until(lambda: len(lines(adopting, backend)) > 30)
    # Any controller has it; all lines, once, and in order as far as one engine's two streams are.
    every = numbers(lines(adopting, backend, controller=1))
    assert sorted(every) == list(range(len(every)))
    last = numbers(lines(adopting, backend, "?tail=5"))
    assert len(last) >= 5
    assert sorted(last) == list(range(min(last), max(last) + 1))

    # Followed over a restart of the drone, from the last event on; until the end.
    seen: list[str] = []
    drone_was_killed, last_id = False, ""
    while not seen or seen[-1] != "the last line":
        for event_id, text in follow(adopting, backend, last_id):
            last_id = event_id
            seen.append(text)
            if len(seen) > 40 and not drone_was_killed:
                drone_was_killed = True
                adopting.programs["drone"].stop(signal.SIGKILL)
                adopting.start_again("drone").says("connected to controller", times=2)
            if len(seen) == 100:
                assert adopting.get(started["url"]).status == 502
    counted = numbers(seen)
    assert sorted(counted) == list(range(min(counted), min(counted) + len(counted)))

    entry = adopting.until_status(backend, "terminated")
    assert "the last line" in entry["message"]
    # The same after the end.
    assert lines(adopting, backend, "?tail=1") == ["the last line"]
    kept = numbers(lines(adopting, backend, "?tail=100000"))
    assert sorted(set(every) - set(kept)) == []
    assert sorted(kept) == list(range(len(kept)))
    assert lines(adopting, backend, "?tail=1&follow=true") == ["the last line"]


def follow(cluster: Cluster, backend: str, last_id: str) -> Iterator[tuple[str, str]]:
    """Ids and texts of events, until the stream ends, one way or another."""
    host, port = cluster.control_urls[1].removeprefix("http://").split(":")
    client = http.client.HTTPConnection(host, int(port), timeout=30)
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
    try:
        client.request("GET", f"/ctrl/b/{backend}/logs?follow=true", headers=headers)
        answer = client.getresponse()
        if answer.status != 200:
            # No drone is there at the moment.
            assert answer.status == 504, answer.read()
            return
        event_id = ""
        while row := answer.readline():
            if row.startswith(b"id: "):
                event_id = row[4:].decode().strip()
            elif row.startswith(b"data: "):
                yield event_id, json.loads(row[6:])["text"]
    except (ConnectionError, http.client.IncompleteRead):
        return
    finally:
        client.close()


def test_a_slow_reader_slows_only_itself(postgres_url: str, tmp_path: Path) -> None:
    flood = WRITER.replace("time.sleep(0.02)", "time.sleep(0.0001)").replace('"line", number', '"x" * 500, number')
    options = ("--terminate-on-exit", "--log-limit-bytes", "1000000")
    with separate_parts(postgres_url, tmp_path, controllers=1, drone=options) as cluster:
        backend = cluster.spawn("k", CODE=flood)["backend_id"]
        cluster.until_status(backend, "ready")
        host, port = cluster.control_urls[0].removeprefix("http://").split(":")
        stalled = socket.create_connection((host, int(port)))
        with stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.sendall(f"GET /ctrl/b/{backend}/logs?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            # Everybody else is served meanwhile, and what is kept stays bounded.
            end = time.monotonic() + 5
            while time.monotonic() < end:
                assert cluster.spawn("k")["spawned"] is False
                assert cluster.call("GET", f"/ctrl/b/{backend}/logs?tail=3").status == 200
            folder = tmp_path / "drone.sqlite-backends" / backend
            assert sum(path.stat().st_blocks * 512 for path in folder.iterdir()) < 4_000_000


def test_refusals_say_why(postgres_url: str, tmp_path: Path) -> None:
    with separate_parts(postgres_url, tmp_path, controllers=1) as cluster:
        assert cluster.call("GET", "/ctrl/b/unknown/logs").status == 404
        backend = cluster.spawn("k")["backend_id"]
        for query in ("?tail=-1", "?tail=x", "?follow=yes", "?after=1.5", "?tail=99999999999999999999"):
            refused = cluster.call("GET", f"/ctrl/b/{backend}/logs{query}")
            assert refused.status == 400, query
            assert "query parameter" in refused.json()["message"]


@pytest.mark.parametrize(("query", "most"), [("?tail=3", 3), ("?tail=1000", 100), ("?after=0", 100)])
async def test_a_backend_that_writes_faster_than_it_is_read_does_not_make_a_reading_endless(
    postgres_url: str, query: str, most: int
) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base, extensions=["logs"]) as drone:
        spawn = {"executable": {"image": "example/image"}, "cluster": CLUSTER}
        backend = (await api.connect(spawn_config=spawn))["backend_id"]
        flood = asyncio.create_task(write_without_end(drone))
        try:
            url = f"{api.base}/ctrl/b/{backend}/logs{query}"
            async with asyncio.timeout(20), aiohttp.ClientSession() as http, http.get(url) as response:
                rows = (await response.text()).splitlines()
            assert 3 <= len(rows) <= most
            if query == "?after=0":
                # What there was, and no line that came after.
                assert len(rows) == 40
        finally:
            flood.cancel()
            await asyncio.wait([flood])


def test_output_is_followed_from_before_the_start(adopting: Cluster) -> None:
    backend = adopting.spawn("k", CODE=WRITER)["backend_id"]
    with Plane(adopting.control_urls[0]) as plane:
        assert next(plane.logs(backend, follow=True)).text.startswith("line ")


def test_the_last_lines_of_a_backend_that_writes_all_the_time_end(adopting: Cluster) -> None:
    flood = WRITER.replace("time.sleep(0.02)", "time.sleep(0.0002)").replace('"line", number', '"x" * 300, number')
    backend = adopting.spawn("k", CODE=flood)["backend_id"]
    adopting.until_status(backend, "ready")
    # Both controllers: the drone is connected to one of them.
    for controller in (0, 1):
        until(lambda: len(lines(adopting, backend, "?tail=200")) == 200)
        for tail in (1, 100):
            counts: list[int] = []

            def reads_all(tail: int = tail, controller: int = controller, counts: list[int] = counts) -> bool:
                began = time.monotonic()
                counts.append(len(lines(adopting, backend, f"?tail={tail}", controller=controller)))
                assert time.monotonic() - began < 10
                return counts[-1] == tail

            # While an engine begins a new file it knows the lines of that one alone.
            until(reads_all)
            assert max(counts) == tail


async def write_without_end(drone: FakeNode) -> None:
    """Answer each reading with ten lines, while twenty are written; the time of a line is its number."""
    newest = 0
    while True:
        asked = await drone.receive("ReadLogs")
        newest += 20
        first = asked["after"] + 1 if asked.get("after") is not None else newest - min(asked["tail"], newest) + 1
        lines = [[number, "x"] for number in range(first, newest + 1)][:10]
        await drone.send("LogsRead", {"request_id": asked["request_id"], "page": {"lines": lines, "ended": False}})


async def test_an_original_drone_is_not_disturbed(postgres_url: str) -> None:
    """A drone that does not know of logs is not asked for them."""
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        spawn = {"executable": {"image": "example/image"}, "cluster": CLUSTER}
        backend = (await api.connect(spawn_config=spawn))["backend_id"]
        status, body = await api.call("GET", f"/ctrl/b/{backend}/logs")
        assert status == 404
        assert "does not support log requests" in body["message"]
        await drone.receive("Action")
        await drone.send("RenewKey", {"backend": "none", "local_time": 1})
        await drone.receive("RenewKeyResponse")
        assert not drone.has_received("ReadLogs")


def test_the_public_status_says_why_a_backend_ended_and_shows_none_of_its_output(cluster: Cluster) -> None:
    secret = "planted-in-the-output"
    executable = cluster.executable(CODE=f"print('{secret}', flush=True); raise SystemExit(7)")
    backend = cluster.connect(spawn_config={"executable": executable})["backend_id"]
    assert secret in cluster.until_status(backend, "terminated")["message"]
    public = cluster.status(backend)
    assert public["message"] == "exited with code 7"
    assert secret not in json.dumps([public, cluster.history(backend)])
    with Plane(cluster.control_urls[0], token=cluster.api_key) as plane, pytest.raises(BackendEnded, match=secret):
        plane.until_ready(backend)
