"""Which strings are too large for execve(2), alone and together, compared with the kernel."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest

from plane.decisions.backends.exec_limits import (
    LARGEST_TOTAL_BYTES,
    STRING_LIMIT_BYTES,
    describe_excess,
    total_limit_bytes,
)

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("stack", "total"),
    [(8 * MIB, 2 * MIB), (None, LARGEST_TOTAL_BYTES), (2**40, LARGEST_TOTAL_BYTES), (4096, 128 * 1024)],
)
def test_a_quarter_of_the_stack_is_allowed_within_bounds(stack: int | None, total: int) -> None:
    assert total_limit_bytes(stack) == total


def test_a_single_string_that_is_too_large_is_named() -> None:
    longest = "x" * (STRING_LIMIT_BYTES - len("A=\0"))
    assert describe_excess(["true"], {"A": longest, "B": ""}, 2 * MIB) is None
    assert (describe_excess(["true"], {"A": longest + "x"}, 2 * MIB) or "").startswith(
        "executable.env: A has 131073 bytes"
    )
    assert (describe_excess(["true", "é" * 65536], {}, 2 * MIB) or "").startswith(
        "executable.command[1] has 131073 bytes, and"
    )
    assert describe_excess([], {}, 0) is None


def test_strings_too_large_together_name_the_largest() -> None:
    variables = {f"V{index}": "x" * 100_000 for index in range(20)} | {"LARGEST": "x" * 120_000}
    reason = describe_excess(["true"], variables, 2 * MIB)
    assert reason is not None
    assert "21 variables (env) and 1 arguments (command) have 21" in reason
    assert "the largest is executable.env: LARGEST with 120009 bytes" in reason
    # Tiny ones cost a pointer each.
    assert describe_excess([], {f"V{index:06}": "" for index in range(130_000)}, 2 * MIB) is not None


def test_the_kernel_accepts_allowed_sizes_and_refuses_larger_ones() -> None:
    total = total_limit_bytes(resource.getrlimit(resource.RLIMIT_STACK)[0])
    size = total // 100
    fitting = {f"V{index}": "x" * (size - 20) for index in range(99)}
    assert describe_excess(["/bin/true"], fitting, total) is None
    subprocess.run(["/bin/true"], env=fitting, check=True)
    beyond = {f"V{index}": "x" * size for index in range(101)}
    assert describe_excess(["/bin/true"], beyond, total) is not None
    with pytest.raises(OSError, match=os.strerror(7)):
        subprocess.run(["/bin/true"], env=beyond, check=True)
