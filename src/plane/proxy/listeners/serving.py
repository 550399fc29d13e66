"""Serves clients in this process while a block runs: ports, and background tasks.

Used by `server` where there is one process, and by `worker` in each of several.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from plane import timing
from plane.proxy.certificates.files import CertificateFiles
from plane.proxy.certificates.tls import CertificateHolder
from plane.proxy.listeners.entry_points import EntryPoints
from plane.proxy.service import ProxyService
from plane.settings import ProxySettings
from plane.tasks import end_tasks, run_together

__all__ = ["certificate_files", "serving"]

# glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD: see `_keep_large_buffers`.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGE_BUFFERS_BYTES = 64 * 1024 * 1024

_NO_CERTIFICATE = "no certificate yet"


@asynccontextmanager
async def serving(
    settings: ProxySettings, service: ProxyService, entry_points: EntryPoints, certificates: CertificateHolder
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Accept connections while the block runs. Yield the tasks, which run as long."""
    _keep_large_buffers()
    tasks = [
        asyncio.create_task(service.keepalive.run(), name="keepalive"),
        asyncio.create_task(service.routes.run(), name="route lookups"),
        asyncio.create_task(service.sweep(), name="deadlines"),
    ]
    try:
        if settings.https_port is not None:
            service.missing.add(_NO_CERTIFICATE)
            files = certificate_files(settings)
            tasks.append(asyncio.create_task(_serve_tls(entry_points, service, certificates, files), name="TLS"))
        if settings.metrics_port is not None:
            # Imported here, so that a proxy without metrics starts sooner.
            from plane.proxy.metrics import serve_metrics

            metrics = serve_metrics(service, settings.metrics_host, settings.metrics_port)
            tasks.append(asyncio.create_task(metrics, name="metrics"))
        await entry_points.open_http(service)
        # Objects that exist now live until the end. Collecting them again and again would delay requests.
        gc.freeze()
        yield tasks
    finally:
        entry_points.close()
        await service.drain(timing.PROXY_SHUTDOWN_GRACE_S)
        await end_tasks(tasks)


def certificate_files(settings: ProxySettings) -> CertificateFiles | None:
    """Return the certificate's files. None without TLS, or for an ordered certificate that is in memory only."""
    if settings.https_port is None or (settings.cert_path is None and settings.tls_pair is None):
        return None
    return CertificateFiles(json=settings.cert_path, pair=settings.tls_pair)


async def _serve_tls(
    entry_points: EntryPoints, service: ProxyService, certificates: CertificateHolder, files: CertificateFiles | None
) -> None:
    """Open the TLS port once there is a certificate, and reload its files when they change, until cancelled."""

    async def open_port() -> None:
        await entry_points.open_https(service, certificates)
        service.missing.discard(_NO_CERTIFICATE)
        await entry_points.run()

    parts = [open_port()]
    if files is not None:
        parts.append(files.watch(certificates))
    await run_together(*parts)


def _keep_large_buffers() -> None:
    """Make malloc keep the memory of large reads instead of returning it to the kernel each time.

    Throughput of 1 MiB bodies is half again as high (docs/internals/performance.md). No effect without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BUFFERS_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _LARGE_BUFFERS_BYTES)
