"""Benchmarks: always a ratio to something real in the same interleaved run, since machines are noisy."""
