"""An embedded PostgreSQL: its binaries, its account, its folders and its server process."""
