"""Variables that a shell exports reach the command unchanged."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from plane.decisions.backends.shell_exports import export_script, is_shell_name

VALUES = {
    "EMPTY": "",
    "QUOTES": "it's '' \"$HOME\" `id` \\ $(id) !",
    "LINES": "one\ntwo\n\n",
    # Bytes that dash uses for itself are among those of these characters.
    "CHARACTERS": "".join(map(chr, range(1, 0x250))) + "…🚀",
    "IFS": "x",
    "PS4": "$(id)",
    "ENV": "/nowhere",
    "BASH_ENV": "/nowhere",
    "LC_ALL": "xx_XX",
}


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_every_value_reaches_the_command(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell}")
    script = export_script({**VALUES, "OPTIND": "none", "UID": "7"}) + "exec env -0\n"
    done = subprocess.run([shell, "-c", script], env={}, capture_output=True, check=True)
    found = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if entry)
    assert {name: found.get(name) for name in VALUES} == VALUES
    assert done.stderr == b""


def test_no_variables_make_a_valid_script() -> None:
    assert subprocess.run(["sh", "-c", export_script({}) + "echo fine"], capture_output=True, check=True).stdout


def test_invalid_names_and_values_are_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        export_script({"A": "a\0b"})
    assert [name for name in ("A", "_1", "1A", "a.b", "", "a b", "A\n", "é") if is_shell_name(name)] == ["A", "_1"]
