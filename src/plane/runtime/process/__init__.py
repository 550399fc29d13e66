"""The runtime that executes backends as processes of this machine."""
