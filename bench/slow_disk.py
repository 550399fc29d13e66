"""A PostgreSQL on a disk that takes its time: each sync takes 1 ms more, as network disks of clouds do.

Where a sync takes 0.1 ms the floor of connects is bound by the processor alone; on most machines by the disk.
A library of four lines stands before the C library's `fdatasync`.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from plane.database.embedded.server import embedded_postgres

__all__ = ["SLOWER_BY_MS", "postgres_on_a_slow_disk"]

SLOWER_BY_MS = 1

_LIBRARY = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
int fdatasync(int file) {
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    usleep(SLOWER_BY_US);
    return sync(file);
}
"""


@asynccontextmanager
async def postgres_on_a_slow_disk(folder: Path) -> AsyncIterator[str | None]:
    """The URL of its database; None where there is no C compiler to make the library with."""
    compiler = shutil.which("cc")
    if compiler is None:
        yield None
        return
    library = folder / "slow_disk.so"
    command = [compiler, "-shared", "-fPIC", "-O2", f"-DSLOWER_BY_US={SLOWER_BY_MS * 1000}", "-x", "c", "-"]
    subprocess.run([*command, "-o", str(library), "-ldl"], input=_LIBRARY, text=True, check=True)
    async with embedded_postgres(folder / "slow", preload=library) as url:
        yield url
