"""PgBouncer in transaction mode, before a PostgreSQL server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from harness import real_parts
from harness.clusters import free_port, until

__all__ = ["pgbouncer"]

CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
ignore_startup_parameters = {parameters}
"""
# Those that Plane sets for its sessions.
PARAMETERS = (
    "extra_float_digits, jit, plan_cache_mode, enable_seqscan, enable_hashjoin, enable_mergejoin, "
    "default_transaction_isolation, idle_in_transaction_session_timeout, statement_timeout, lock_timeout, "
    "tcp_user_timeout, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, options, search_path"
)


@contextmanager
def pgbouncer(url: str, folder: Path, *, parameters: str = PARAMETERS) -> Iterator[str]:
    """Run PgBouncer before the server of ``url``. Yields the URL of the same database through it.

    ``parameters``: those of a session that it ignores instead of refusing the connection.
    """
    found = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        real_parts.missing("PgBouncer")
    assert found is not None
    parts = urlsplit(url)
    port = free_port()
    # Read by another user, who has no way through the folders of root: it refuses to run as root.
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as configuration, (folder / "pgbouncer.log").open("wb") as log:
        configuration.write(
            CONFIGURATION.format(
                host=parts.hostname,
                port=parts.port,
                user=parts.username or "postgres",
                own_port=port,
                parameters=parameters,
            )
        )
        configuration.flush()
        Path(configuration.name).chmod(0o644)
        user = "nobody" if os.geteuid() == 0 else None
        process = subprocess.Popen([found, configuration.name], user=user, stdout=log, stderr=log)
        try:
            ready = [shutil.which("pg_isready") or "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
            until(lambda: subprocess.run(ready, check=False, capture_output=True).returncode == 0)
            yield f"postgresql://{parts.username or 'postgres'}@127.0.0.1:{port}{parts.path}"
        finally:
            process.terminate()
            process.wait(20)
