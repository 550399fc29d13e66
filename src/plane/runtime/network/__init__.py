"""The ports of backends, and relays into their network namespaces."""
