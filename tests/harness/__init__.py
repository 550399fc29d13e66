"""What tests of several kinds use: nodes that speak the bare protocol, and the real program as a process."""
