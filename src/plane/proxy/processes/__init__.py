"""Several processes behind the same ports, and a new process that takes them over."""
