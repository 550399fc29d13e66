"""From a request to a backend: tokens, routes, and what is rewritten on the way."""
