"""Faults of a whole machine, for one program: another boot, a wrong clock."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from harness import real_parts

__all__ = ["rebooted", "wrong_clock"]


def rebooted(folder: Path) -> tuple[str, ...]:
    """What runs a program as if the machine had been booted since: a mount namespace with another boot id."""
    if os.geteuid() != 0:
        real_parts.missing("mount namespaces (root)")
    boot_id = folder / f"boot_id-{uuid.uuid4()}"
    boot_id.write_text(f"{uuid.uuid4()}\n")
    mount = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", mount, str(boot_id))


def wrong_clock(offset: str) -> dict[str, str]:
    """The environment of a program whose time of day is off, as in ``-1h``; time since boot is right."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        real_parts.missing("libfaketime (Debian's faketime)")
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}
