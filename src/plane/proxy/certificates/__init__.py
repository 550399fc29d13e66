"""The cluster's certificate: order, renewal, files, and the TLS context."""
