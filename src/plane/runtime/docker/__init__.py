"""Backends as Docker containers."""
