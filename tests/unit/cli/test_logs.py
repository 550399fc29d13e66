"""What the program logs has no values of variables, whoever logs it and however it fails."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAILS = """
import asyncio, functools, logging, sys, structlog
from plane.cli.logs import print_uncaught, set_up_logs
from plane.database.connect import KeyQuery, TokenGrant
from plane.protocol.control_api import ConnectRequest, ConnectResponse
from plane.protocol.drone_messages import SpawnOrder
from plane.protocol.keys import KeyConfig
from plane.protocol.proxy_messages import RouteInfo, RouteInfoResponse, TokensRevoked
from plane.protocol.spawn import DockerExecutable, ProcessExecutable, SpawnConfig

set_up_logs()
sys.excepthook = print_uncaught
log = structlog.get_logger("test")
env = {"A": "planted"}
executable = {"command": ["x", "planted"], "env": env}
request = ConnectRequest(spawn_config=SpawnConfig(executable=executable), auth={"x": "planted"})
question = KeyQuery(KeyConfig("k"), TokenGrant("planted", "planted", None, "planted"), None, "", 1)
route = RouteInfo(backend_id="b", address="a", secret_token="planted", cluster="c", user_data={"x": "planted"})
messages = [
    request, question, route, RouteInfoResponse("planted", route), TokensRevoked("b", ("planted",)),
    ProcessExecutable(command=["planted"], env=env), DockerExecutable(image="i", env=env),
    SpawnOrder(executable, None, "planted"),
    ConnectResponse(backend_id="b", spawned=True, status="ready", token="planted", url="planted",
                    secret_token="planted", status_url="u"),
]

def fail(*arguments):
    secret = "planted"
    raise ValueError("to be seen", arguments)

def silent(*arguments):
    raise ValueError("in a callback")

try:
    fail(*messages)
except ValueError as error:
    log.exception("logged 1")
    log.error("logged 2", exc_info=error, request=request)
    logging.getLogger("a.library").error("logged 3 postgresql://u:planted@h/x", exc_info=error)

async def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(functools.partial(silent, *messages, env))
    loop.call_soon(silent, b"POST / HTTP/1.1\\r\\nAuthorization: Bearer planted\\r\\n", "planted")
    task = asyncio.create_task(asyncio.to_thread(fail, *messages))
    await asyncio.sleep(0.2)
    del task

asyncio.run(main())
logging.getLogger("asyncio").error("Exception in callback f(planted)\\nhandle: planted")
fail(*messages)
"""


@pytest.mark.parametrize("json", ["", "1"])
def test_no_failure_shows_what_it_was_about(json: str) -> None:
    values = {**os.environ, "PLANE_LOG": "debug", "PLANE_LOG_JSON": json}
    done = subprocess.run([sys.executable, "-c", FAILS], env=values, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    for seen in ("logged 1", "logged 2", "logged 3", "Exception in callback", "in fail", "to be seen"):
        assert seen in done.stderr
    # A traceback has lines of the program: this one, with the word.
    lines = [line for line in done.stderr.splitlines() if 'secret = "planted"' not in line]
    assert "planted" not in "\n".join(lines)


def test_a_pool_that_cannot_connect_adds_no_traceback() -> None:
    """A controller says "database not available" itself, once for each request."""
    code = """
import logging
from plane.cli.logs import set_up_logs
set_up_logs()
logging.getLogger("asyncpg.pool").warning("Failed to restore the pool connection floor; retrying")
logging.getLogger("asyncpg.pool").error("seen")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "seen" in done.stderr
    assert "pool connection floor" not in done.stderr


def test_a_line_of_the_log_is_one_line_of_plain_text() -> None:
    code = """
import structlog
from plane.cli.logs import set_up_logs
set_up_logs()
for text in ("x\\x1b[2J", "two\\nlines", "a b\\x1b[2J"):
    structlog.get_logger().warning(text, value=text)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, third = (line.partition("] ")[2].split("value=") for line in run.stderr.splitlines())
    assert first[0].strip() == first[1] == r"x\x1b[2J"
    assert (second[0].strip(), second[1]) == (r"two\nlines", r"'two\nlines'")
    assert (third[0].strip(), third[1]) == (r"a b\x1b[2J", r"'a b\x1b[2J'")
