"""The commands of `plane db`, each imported when it runs."""

from __future__ import annotations

from cyclopts import App

__all__ = ["db"]

db = App(name="db", group_commands="Commands")
db.command("plane.cli.db.events:events", name="events")
db.command("plane.cli.db.lists:list_nodes", name="list-nodes")
db.command("plane.cli.db.lists:list_backends", name="list-backends")
db.command("plane.cli.db.lists:termination_candidates", name="termination-candidates")
db.command("plane.cli.db.prevent_renew:prevent_renew", name="prevent-renew")
db.command("plane.cli.db.cleanup:cleanup", name="cleanup")
db.command("plane.cli.db.mark_backend_lost:mark_backend_lost", name="mark-backend-lost")
