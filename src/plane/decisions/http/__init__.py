"""HTTP/1.1 (RFC 9110, RFC 9112) and what surrounds it: framing, limits, timeouts, and which peers are trusted."""
