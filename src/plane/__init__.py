"""Plane: a distributed hash map whose values are running processes.

Map of the package (docs/architecture.md has the rules):

- ``protocol``: what is said. Types of everything that travels; no I/O.
- ``decisions``: what is decided. Pure functions and small state machines; they are given the time.
- ``database``: what the controllers remember, in PostgreSQL. ``drone.state_store``: what a drone does, in SQLite.
- ``transport``: sockets that carry ``protocol``.
- ``controller``, ``drone``, ``runtime``, ``proxy``, ``dns``: the shells that do it, one folder per role.
- ``client``: the control API for applications.
- ``dev``: all of them in one process. ``cli``: one file per command.
- ``timing``: every duration. ``settings``: every setting. ``identity``: random names. ``version``.
- ``ownership``: how tasks are run together and ended. ``open_files``: how many files may be open.
- ``repeated_warning``: warnings that others can cause as often as they like.
"""
