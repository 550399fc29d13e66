"""Revoked tokens lead nowhere at once: controller, notification and proxy together."""

from __future__ import annotations

import socket

from harness.clusters import Cluster


def closed(tunnel: socket.socket) -> bool:
    """Wait until the other side has closed it."""
    try:
        return tunnel.recv(1) == b""
    except ConnectionError:
        return True


def test_a_revoked_user_is_cut_and_the_others_go_on(processes: Cluster) -> None:
    executable = {"executable": processes.executable()}
    opened = {user: processes.connect(key={"name": "k"}, spawn_config=executable, user=user) for user in ("ann", "bob")}
    assert opened["ann"]["backend_id"] == opened["bob"]["backend_id"]
    tunnels = {user: processes.tunnel(answer["url"]) for user, answer in opened.items()}
    for tunnel in tunnels.values():
        tunnel.sendall(b"hello")
        assert tunnel.recv(5) == b"hello"
    body = {"backend_id": opened["ann"]["backend_id"], "user": "ann"}
    # Another controller than the one that the proxy is connected to.
    assert processes.call("POST", "/ctrl/b/revoke", body, controller=1).status == 200
    assert closed(tunnels["ann"])
    assert processes.get(opened["ann"]["url"]).status == 410
    tunnels["bob"].sendall(b"still here")
    assert tunnels["bob"].recv(10) == b"still here"
    assert processes.get(opened["bob"]["url"]).status == 200
    for tunnel in tunnels.values():
        tunnel.close()
