"""The proxy's ports."""
