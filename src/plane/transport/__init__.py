"""Sockets that carry `plane.protocol`: typed, bounded, reconnecting."""
