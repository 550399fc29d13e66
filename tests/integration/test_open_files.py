"""Who may have how many files open: a drone and a proxy many, a backend as many as it would without them."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

import pytest

from plane import open_files
from plane.runtime.supervised import Supervised


async def test_a_backend_does_not_inherit_the_raised_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(open_files, "_GIVEN", 256)
    go, said = tmp_path / "go", tmp_path / "said"
    try:
        assert open_files.raise_open_files_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        script = f"while [ ! -e {go} ]; do sleep 0.02; done; ulimit -Sn; ulimit -Hn"
        with said.open("wb") as output:
            command = ["/bin/sh", "-c", script]
            child = Supervised.start(command, env=os.environ, output=output.fileno(), inherited=(), cwd="/")
        go.touch()
        async with asyncio.timeout(20):
            assert await child.wait() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert said.read_text().split() == ["256", str(before[1])]
