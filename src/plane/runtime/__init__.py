"""What runs backends: one interface, in `base`, and behind it processes, Docker, and a fake for tests."""
