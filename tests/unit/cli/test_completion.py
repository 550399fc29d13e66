"""The scripts of completions."""

from __future__ import annotations

import subprocess

import pytest

from plane.cli.completion import completion

# What bash does at the Tab key after the words $@. No program can be found, so that none is started.
TAB = """
PATH=/nowhere
eval "$SCRIPT"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_plane
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["plane", "admin", "li"], {"list"}),
        (["plane", "admin", "webhook", ""], {"set", "list", "delete", "test"}),
        (["plane", "completion", ""], {"bash", "zsh", "fish"}),
        (["plane", "drone", "--runtime", "d"], {"docker"}),
        (["plane", "admin", "--controller", "http://c", "inspect", "--j"], {"--json"}),
    ],
)
def test_the_tab_key_completes_in_bash_without_a_program(
    words: list[str], completed: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    completion("bash")
    script = capsys.readouterr().out
    bash = ["/bin/bash", "-c", TAB, "bash", *words]
    done = subprocess.run(bash, env={"SCRIPT": script}, check=False, capture_output=True, text=True)
    assert (set(done.stdout.split()), done.stderr) == (completed, "")


def test_zsh_calls_the_function_of_the_script_whatever_the_name_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    completion("zsh")
    script = capsys.readouterr().out
    assert script.startswith("#compdef plane\n")
    assert script.count("\n_cyclopts_plane() {\n") == 1
    assert '\nif [[ $funcstack[1] == _* ]]; then\n  _cyclopts_plane "$@"\n' in script
