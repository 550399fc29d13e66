"""`plane completion`."""

from __future__ import annotations

import sys
from typing import Literal

__all__ = ["completion"]


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a shell script that completes commands and options.

    Example: plane completion bash > /etc/bash_completion.d/plane

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    from plane.cli.main import make_program

    sys.stdout.write(make_program().generate_completion(shell=shell))
