"""`plane completion`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["completion"]

# The library's script defines a function only, which zsh calls if its file has the same name. So it can be a file
# `_plane`, as usual, and be read by `source`.
_ZSH_CALL = """
if [[ $funcstack[1] == _* ]]; then
  _cyclopts_plane "$@"
else
  compdef _cyclopts_plane plane
fi
"""


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a shell script that completes commands and options.

    Example: plane completion bash > /etc/bash_completion.d/plane

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    from plane.cli.main import make_program

    program = make_program()
    _describe_as_plain_text(program)
    sys.stdout.write(program.generate_completion(shell=shell))
    if shell == "zsh":
        sys.stdout.write(_ZSH_CALL)


def _describe_as_plain_text(program: App) -> None:
    """Do not render the descriptions of options as Markdown, which takes more time than all the rest of a script."""
    program.help_format = "plaintext"
    for name, command in program.resolved_commands().items():
        if name not in program.help_flags and name not in program.version_flags:
            _describe_as_plain_text(command)
