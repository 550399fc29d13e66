"""The runtime that executes backends as Docker containers."""
