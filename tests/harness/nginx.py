"""nginx as a plain reverse proxy, for tests that compare."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import real_parts
from harness.clusters import free_port

__all__ = ["nginx"]

CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{ worker_connections 64; }}
http {{ access_log off; keepalive_timeout 0; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; location / {{
    proxy_http_version 1.1; proxy_request_buffering off; proxy_pass http://127.0.0.1:{backend}; }} }} }}
"""


@contextmanager
def nginx(folder: Path, backend_port: int) -> Iterator[int]:
    """Its port."""
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        real_parts.missing("nginx")
    assert found is not None
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port, backend=backend_port))
    process = subprocess.Popen([found, "-p", folder, "-c", configuration], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while not (folder / "pid").exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, "nginx does not start"
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(20)
