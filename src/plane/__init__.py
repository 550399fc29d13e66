"""Plane: a distributed hash map whose values are running processes.

Map of the package (docs/internals/architecture.md has the rules):

- ``protocol``: the types of everything that travels on the wire; no I/O.
- ``decisions``: rules as pure functions and small state machines, which are given the time.
- ``database``: what the controllers store in PostgreSQL. ``drone.state_store``: what a drone stores, in SQLite.
- ``transport``: sockets that carry ``protocol``.
- ``controller``, ``drone``, ``executor``, ``runtime``, ``proxy``, ``dns``: the shells, one folder per role.
- ``client``: the control API for applications.
- ``dev``: all roles in one process. ``doctor``: checks of a machine and of configurations. ``cli``: one file per
command.
- ``timing``: every duration. ``settings``: every setting. ``random_ids``: random names and tokens. ``version``.
- ``tasks``: how tasks are run together and ended. ``fd_limit``: how many files may be open.
- ``throttled_log``: warnings that a peer can cause as often as it likes.
"""
