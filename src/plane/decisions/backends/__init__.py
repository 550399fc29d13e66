"""The lifecycle of a backend: its states, its limits, and when it is terminated."""
