"""The commands of `plane admin`. Loaded by `plane.cli.main` when one of them runs."""

from __future__ import annotations

from cyclopts import App

from plane.cli.admin.backends import inspect_backend, list_backends
from plane.cli.admin.connect import connect
from plane.cli.admin.drain import drain, undrain
from plane.cli.admin.events import audit, events
from plane.cli.admin.logs import logs
from plane.cli.admin.put_dummy_dns import put_dummy_dns
from plane.cli.admin.revoke import revoke
from plane.cli.admin.states import backend_status, cluster_state, status
from plane.cli.admin.terminate import terminate
from plane.cli.admin.top import top
from plane.cli.admin.webhook import webhook

__all__ = ["admin"]

admin = App(name="admin", group_commands="Commands")
admin.command(connect, name="connect")
admin.command(terminate, name="terminate")
admin.command(revoke, name="revoke")
admin.command(list_backends, name="list")
admin.command(inspect_backend, name="inspect")
admin.command(logs, name="logs")
admin.command(top, name="top")
admin.command(events, name="events")
admin.command(audit, name="audit")
admin.command(webhook, name="webhook")
admin.command(status, name="status")
admin.command(cluster_state, name="cluster-state")
admin.command(backend_status, name="backend-status")
admin.command(drain, name="drain")
admin.command(undrain, name="undrain")
admin.command(put_dummy_dns, name="put-dummy-dns")
