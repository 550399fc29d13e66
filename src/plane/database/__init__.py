"""What is remembered by the controllers: PostgreSQL, the only durable state and the bus between them.

One pair of files per aggregate: ``backends.sql`` has the statements, each with a name and a line that says
what it is for; ``backends.py`` calls them with types. Nothing is decided here.
"""
