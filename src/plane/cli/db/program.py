"""The commands of `plane db`. Loaded by `plane.cli.main` when one of them runs."""

from __future__ import annotations

from cyclopts import App

from plane.cli.db.cleanup import cleanup
from plane.cli.db.events import events
from plane.cli.db.lists import list_backends, list_nodes, termination_candidates
from plane.cli.db.mark_backend_lost import mark_backend_lost
from plane.cli.db.prevent_renew import prevent_renew

__all__ = ["db"]

db = App(name="db", group_commands="Commands")
db.command(events, name="events")
db.command(list_nodes, name="list-nodes")
db.command(list_backends, name="list-backends")
db.command(termination_candidates, name="termination-candidates")
db.command(prevent_renew, name="prevent-renew")
db.command(cleanup, name="cleanup")
db.command(mark_backend_lost, name="mark-backend-lost")
