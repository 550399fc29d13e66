"""The commands of `plane admin`, each imported when it runs."""

from __future__ import annotations

from cyclopts import App

__all__ = ["admin"]

admin = App(name="admin", group_commands="Commands")
admin.command("plane.cli.admin.connect:connect", name="connect")
admin.command("plane.cli.admin.terminate:terminate", name="terminate")
admin.command("plane.cli.admin.revoke:revoke", name="revoke")
admin.command("plane.cli.admin.backends:list_backends", name="list")
admin.command("plane.cli.admin.backends:inspect_backend", name="inspect")
admin.command("plane.cli.admin.logs:logs", name="logs")
admin.command("plane.cli.admin.top:top", name="top")
admin.command("plane.cli.admin.events:events", name="events")
admin.command("plane.cli.admin.events:audit", name="audit")
admin.command("plane.cli.admin.webhook:webhook", name="webhook")
admin.command("plane.cli.admin.states:status", name="status")
admin.command("plane.cli.admin.states:cluster_state", name="cluster-state")
admin.command("plane.cli.admin.states:backend_status", name="backend-status")
admin.command("plane.cli.admin.drain:drain", name="drain")
admin.command("plane.cli.admin.drain:undrain", name="undrain")
admin.command("plane.cli.admin.put_dummy_dns:put_dummy_dns", name="put-dummy-dns")
