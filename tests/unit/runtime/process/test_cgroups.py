"""Control groups of version 2, on folders that look like them, and what is found on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plane.protocol.spawn import ResourceLimits
from plane.runtime.process.cgroups import Cgroup, Cgroups

MOUNTINFO = "31 23 0:28 / {mount} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
LIMITS = ResourceLimits(memory_limit_bytes=1000, cpu_period=50_000, cpu_period_percent=30)


def machine(folder: Path, *members: int) -> Path:
    """A /proc/self and a mounted version 2 with a service's group."""
    own = folder / "mount/system.slice/plane.service"
    own.mkdir(parents=True)
    (own / "cgroup.subtree_control").write_text("memory\n")
    (own / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in members))
    proc = folder / "proc"
    proc.mkdir()
    (proc / "mountinfo").write_text(MOUNTINFO.format(mount=folder / "mount"))
    (proc / "cgroup").write_text("0::/system.slice/plane.service\n")
    return proc


def test_version_2_is_used_where_it_is_delegated(tmp_path: Path) -> None:
    proc = machine(tmp_path, os.getpid())
    own = tmp_path / "mount/system.slice/plane.service"
    # On real groups the files of a group go with its folder.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cgroup, "remove", lambda self: None)
        groups = Cgroups.detect(proc)
    assert groups is not None
    # This process went to a leaf, as version 2 wants it, and the controllers were asked for.
    assert (own / "plane-drone/cgroup.procs").read_text() == str(os.getpid())
    assert (own / "cgroup.subtree_control").read_text() == "+cpu +pids"
    group = groups.create("b", LIMITS)
    made = {path.name: path.read_text() for path in (own / "plane-b").iterdir()}
    assert made == {"pids.max": "4096", "memory.max": "1000", "cpu.max": "15000 50000"}
    assert group.member_files == [str(own / "plane-b/cgroup.procs")]
    (own / "plane-b/memory.current").write_text("900\n")
    (own / "plane-b/memory.stat").write_text("anon 100\nfile 200\nnonsense\n")
    (own / "plane-b/cpu.stat").write_text("usage_usec 7\nuser_usec 5\n")
    (own / "plane-b/memory.events").write_text("oom 1\noom_kill 1\n")
    usage = group.usage()
    assert (usage.memory_bytes, usage.memory_stat, usage.cpu_ns) == (900, {"anon": 100, "file": 200}, 7000)
    assert group.ran_out_of_memory()


def test_version_2_is_not_used_if_the_group_has_other_members(tmp_path: Path) -> None:
    assert Cgroups.detect(machine(tmp_path, os.getpid(), 1)) is None
    assert not (tmp_path / "mount/system.slice/plane.service/plane-drone").exists()


def test_without_mounted_controllers_there_are_no_groups(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("")
    (tmp_path / "cgroup").write_text("0::/\n")
    assert Cgroups.detect(tmp_path) is None
