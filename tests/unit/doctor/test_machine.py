from __future__ import annotations

import socket
from pathlib import Path

import pytest

from plane.decisions.diagnosis import Status
from plane.doctor import machine


@pytest.mark.parametrize(("required", "status"), [(True, Status.FAILED), (False, Status.WARNING)])
async def test_an_engine_that_hangs_is_a_failure_only_where_one_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, required: bool, status: Status
) -> None:
    monkeypatch.setattr(machine, "ENGINE_TIMEOUT_S", 0.05)
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(path))
        hanging.listen()
        finding = await machine.docker_engine(path, required=required)
    assert finding.status is status
    assert finding.found.endswith("has not responded within 0.05 s")
    assert finding.advice == "restart it: systemctl restart docker"
