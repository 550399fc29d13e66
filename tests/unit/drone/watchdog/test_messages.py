"""The messages from the drone to its watchdog."""

from __future__ import annotations

import subprocess
import sys

import pytest

from plane.drone.watchdog.messages import Hold, Message, Release, Tick, decode, encode
from plane.runtime.kill_target import ContainerTarget, ProcessTarget


@pytest.mark.parametrize(
    "message",
    [
        Hold("b", 1, 2),
        Hold("b", 1, 2, ProcessTarget(("/sys/fs/cgroup/plane-b",), 12, 34, bubblewrap=True, output="/x/spool\n")),
        Hold("b", 1, 2, ContainerTarget("/run/docker.sock", "plane-b", 5, 6)),
        Release("b"),
        Tick(7),
    ],
)
def test_a_message_is_one_line(message: Message) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"7", b'{"message":"hold"}', b'{"message":"other"}', b"\xff"])
def test_an_invalid_line_raises_a_documented_error(line: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode(line)


def test_the_watchdog_imports_only_the_standard_library() -> None:
    code = (
        "import sys, plane.drone.watchdog.main; "
        "own = {m.partition('.')[0] for m in sys.modules}; "
        "print(sorted(own - sys.stdlib_module_names - {'__main__', 'plane'}))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    found = [name for name in eval(done.stdout) if not name.startswith("__editable__")]
    assert [name for name in found if not name.startswith(("_", "sitecustomize"))] == []
