"""Runtimes execute backends: `base` is the interface of processes, Docker, a remote executor and a fake for tests."""
