from __future__ import annotations

import pytest

from plane.decisions.isolation_hints import isolation_hint

OWN, MASKED = ("/tmp", "/run"), ("/root",)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("OSError: [Errno 30] Read-only file system: '/home/me/.local'", "executable.mount"),
        ("Error: EROFS: read-only file system, open 'x'", "read-only"),
        ("sh: 1: /tmp/x/program.sh: not found", "--expose"),
        ("bwrap: execvp /tmp/x: No such file or directory", "/tmp/x may be"),
        ("[Errno 2] No such file or directory: '/root/app/main.py'", "/root/app/main.py may be"),
        ("python3: can't open file '/run/app.py'", "--expose"),
        ("PermissionError: [Errno 13] Permission denied: '/srv/x'", "--backend-user"),
    ],
)
def test_what_isolation_may_have_caused(output: str, says: str) -> None:
    assert says in (isolation_hint(f"before\n{output}\nafter", OWN, MASKED, drops_user=True) or "")


@pytest.mark.parametrize(
    "output", ["", "boom", "No such file: /etc/x", "/tmp/x is fine", "No such file: /tmpfile", "EACCES"]
)
def test_what_it_has_not(output: str) -> None:
    assert isolation_hint(output, OWN, MASKED, drops_user=False) is None


def test_without_isolation_nothing_is_hidden() -> None:
    assert isolation_hint("No such file: /tmp/x; Read-only file system", (), (), drops_user=True) is None
