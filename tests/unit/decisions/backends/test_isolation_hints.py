"""Messages of real programs from which a hint at isolation follows."""

from __future__ import annotations

import pytest

from plane.decisions.backends.isolation_hints import isolation_hint

OWN, MASKED, HOME = ("/tmp", "/var/tmp", "/run"), ("/root",), "/run/home"

# As these programs wrote them in bubblewrap, where /tmp is private and /usr read-only.
READ_ONLY = {
    "Python": "OSError: [Errno 30] Read-only file system: '/usr/x'",
    "Node": "  errno: -30,\n  code: 'EROFS',\n  syscall: 'open',\n  path: '/usr/x'",
    "Go": "open /opt/x: read-only file system",
    "bash": "bash: line 1: /usr/x: Read-only file system",
    "dash": "sh: 1: cannot create /usr/x: Read-only file system",
    "mkdir": "mkdir: cannot create directory ‘/usr/x’: Read-only file system",
    "Java": "java.io.FileNotFoundException: /opt/x (Read-only file system)",
    "Java, NIO": "java.nio.file.FileSystemException: /opt/x: Read-only file system",
    "Rust": 'Os { code: 30, kind: ReadOnlyFilesystem, message: "Read-only file system" }',
    "Perl": "cannot: Read-only file system at -e line 1.",
}
ABSENT = {
    "Python": "FileNotFoundError: [Errno 2] No such file or directory: '/tmp/none/x'",
    "Python, a program": "python3: can't open file '/tmp/none/x': [Errno 2] No such file or directory",
    "Node": "Error: ENOENT: no such file or directory, open '/tmp/none/x'",
    "Node, a program": "Error: Cannot find module '/tmp/none/x'\n    at Module._resolveFilename (node:internal/x:1:2)",
    "Node, a folder": "Error: ENOENT: no such file or directory, chdir '/' -> '/tmp/none/x'",
    "npm": "npm error enoent Could not read package.json: Error: ENOENT: no such file or directory, open '/tmp/none/x'",
    "Go": "open /tmp/none/x: no such file or directory",
    "Go, a program": "fork/exec /tmp/none/x: no such file or directory",
    "bash": "bash: line 1: /tmp/none/x: No such file or directory",
    "bash, a folder": "bash: line 1: cd: /tmp/none/x: No such file or directory",
    "bash, an interpreter": "bash: ./app: /tmp/none/x: bad interpreter: No such file or directory",
    "dash": "sh: 1: cannot open /tmp/none/x: No such file",
    "dash, a program": "sh: 1: /tmp/none/x: not found",
    "dash, a folder": "sh: 1: cd: can't cd to /tmp/none/x",
    "env": "env: ‘/tmp/none/x’: No such file or directory",
    "Java": "java.io.FileNotFoundException: /tmp/none/x (No such file or directory)",
    "Java, NIO": "java.nio.file.NoSuchFileException: /tmp/none/x",
    "Java, a jar": "Error: Unable to access jarfile /tmp/none/x",
    "Java, a program": 'java.io.IOException: Cannot run program "/tmp/none/x": error=2, No such file or directory',
    "Perl": 'Can\'t open perl script "/tmp/none/x": No such file or directory',
    "git": "fatal: repository '/tmp/none/x' does not exist",
    "Streamlit": "Error: Invalid value: File does not exist: /tmp/none/x.",
    "bubblewrap": "bwrap: execvp /tmp/none/x: No such file or directory",
}


def hint(output: str, *, drops_user: bool = False) -> str:
    return isolation_hint(f"before\n{output}\nafter", OWN, MASKED, HOME, drops_user=drops_user) or ""


@pytest.mark.parametrize("program", READ_ONLY)
def test_a_read_only_file_system_is_hinted_at(program: str) -> None:
    assert "executable.mount" in hint(READ_ONLY[program])
    assert "isolation none" in hint(READ_ONLY[program])


@pytest.mark.parametrize("program", ABSENT)
def test_a_hidden_path_is_hinted_at(program: str) -> None:
    assert hint(ABSENT[program]).startswith("/tmp/none/x may be")
    assert "--expose" in hint(ABSENT[program])


@pytest.mark.parametrize(
    ("output", "path"),
    [
        ("[Errno 2] No such file or directory: '/root/app/main.py'", "/root/app/main.py"),
        ("sh: 1: cd: can't cd to /root", "/root"),
        ("python3: can't open file '/run/app.py'", "/run/app.py"),
    ],
)
def test_every_replaced_folder_is_hinted_at(output: str, path: str) -> None:
    assert hint(output).startswith(f"{path} may be")


@pytest.mark.parametrize(
    "output",
    [
        "PermissionError: [Errno 13] Permission denied: '/srv/x'",
        "java.nio.file.AccessDeniedException: /srv/x",
        "EACCES",
    ],
)
def test_a_refused_access_hints_at_the_user(output: str) -> None:
    assert "--backend-user" in hint(output, drops_user=True)
    assert hint(output) == ""


@pytest.mark.parametrize(
    "output",
    [
        "",
        "boom",
        "No such file: /etc/x",
        "/tmp/x is fine",
        "No such file: /tmpfile",
        "No such file or directory: '/run/home/.config/app.toml'",
        '127.0.0.1 - - "GET /tmp/x HTTP/1.1" 404 Not Found',
    ],
)
def test_other_output_has_no_hint(output: str) -> None:
    assert hint(output) == ""


def test_a_backend_without_isolation_has_no_hint_at_isolation() -> None:
    assert isolation_hint("No such file: /tmp/x; Read-only file system", (), (), HOME, drops_user=True) is None
