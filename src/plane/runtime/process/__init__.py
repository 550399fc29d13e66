"""Backends as processes of this machine."""
