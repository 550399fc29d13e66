"""What tests of several kinds use: nodes that speak page 2 and nothing more, and the real program as a process."""
