"""PostgreSQL: the controllers' only durable state, and the event bus between them.

There is a pair of files per aggregate. ``backends.sql`` has the statements, each with a name and a comment that says
what it is for; ``backends.py`` calls them with types. This package decides nothing and keeps no state between calls.
"""
