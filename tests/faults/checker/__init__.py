"""Checks a history against the guarantees of docs/concepts/guarantees.md. Pure: no clock, no files, no cluster."""
