"""HAProxy as the load balancer in front of a proxy, with the configuration that the documentation shows."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import real_parts
from harness.certificates import Authority
from harness.clusters import free_port

__all__ = ["ADDRESS", "documented", "haproxy"]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "load-balancer.md"
# From there it connects to the proxy.
ADDRESS = "127.0.0.2"


def documented(mode: str) -> str:
    """Return the documented configuration of a mode, "http" or "tcp"."""
    texts: list[str] = re.findall(r"```haproxy\n(.*?)```", PAGE.read_text(), re.S)
    (found,) = (text for text in texts if f"mode {mode}" in text)
    return found


@contextmanager
def haproxy(folder: Path, authority: Authority, configuration: str, proxy_port: int) -> Iterator[int]:
    """Run it with the places of this test; yields its port of TLS."""
    found = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        real_parts.missing("HAProxy")
    assert found is not None
    pem, port, file = folder / "haproxy.pem", free_port(), folder / "haproxy.cfg"
    pem.write_bytes(b"".join(path.read_bytes() for path in authority.pair(authority.issue())))
    for documented_place, place in (
        (":443", f"127.0.0.1:{port}"),
        ("/etc/haproxy/plane.pem", str(pem)),
        ("10.0.0.5:9090", f"127.0.0.1:{proxy_port} source {ADDRESS}"),
    ):
        assert configuration.count(documented_place) == 1
        configuration = configuration.replace(documented_place, place)
    file.write_text(configuration)
    log = folder / "haproxy.log"
    with log.open("w") as output:
        process = subprocess.Popen([found, "-db", "-f", file], stdout=output, stderr=output)
    try:
        end = time.monotonic() + 20
        while not _listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, "HAProxy does not start"
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    listening = f"0100007F:{port:04X} 00000000:0000 0A"
    return listening in Path("/proc/net/tcp").read_text()
