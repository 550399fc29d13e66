"""The ports of backends, and the relays into their network namespaces."""
