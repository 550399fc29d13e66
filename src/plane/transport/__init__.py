"""Connections that carry the messages of `plane.protocol`: typed, bounded, reconnecting."""
