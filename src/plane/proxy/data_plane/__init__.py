"""Requests, responses and tunnels: what moves bytes between clients and backends."""
