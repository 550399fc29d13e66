"""The proxy against nginx, configurable-http-proxy and the backend directly: ``python -m bench.proxy [ROW…]``.

One core for what is measured, the other for load and backend; rounds interleaved, medians, ratios to nginx of the same
round. Traffic stays on loopback and ends by itself. Needs nginx and wrk; configurable-http-proxy where npm is.
"""
