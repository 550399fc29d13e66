"""The database's clock and failover, and the files of an embedded server."""
