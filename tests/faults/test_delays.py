"""A delayed host's connections work, with every byte, and each round trip takes the delay twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import real_parts

NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc")
DELAY_S = 0.2
# Sends 300 KB to a host that is delayed, and gets their checksum; prints the seconds that it took.
SCRIPT = """
import hashlib, os, socket, sys, time
from pathlib import Path
from faults.hosts import Host, make_bridge
SERVER = '''
import hashlib, socket
with socket.create_server(("0.0.0.0", 7)) as listener:
    while True:
        client = listener.accept()[0]
        data = client.makefile("rb").read()
        client.sendall(hashlib.sha256(data).digest())
        client.close()
'''
def exchange():
    began, data = time.monotonic(), os.urandom(300_000)
    for _ in range(100):
        try:
            client = socket.create_connection((host.ip, 7), 20)
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    assert client.makefile("rb").read() == hashlib.sha256(data).digest()
    return time.monotonic() - began
make_bridge()
host = Host("host-1", 90, Path(sys.argv[1]))
host.boot()
host.start([sys.executable, "-c", SERVER], Path(sys.argv[1]) / "log", {}, Path("/"))
exchange()
undo = host.delay(float(sys.argv[2]))
delayed = exchange()
undo()
exchange()
host.power_off()
print(delayed)
"""


def test_frames_are_delayed_and_arrive() -> None:
    if os.geteuid() != 0 or not shutil.which("ip"):
        real_parts.missing("root, who may make namespaces")
    with tempfile.TemporaryDirectory(prefix="plane-delay-") as folder:
        done = subprocess.run(
            ["unshare", *NAMESPACES, sys.executable, "-c", SCRIPT, folder, str(DELAY_S)],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
    assert done.returncode == 0, done.stderr[-2000:]
    # The connection, and the response.
    assert float(done.stdout) >= 4 * DELAY_S
