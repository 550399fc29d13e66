"""Traces of requests through the parts of a cluster, exported with OpenTelemetry. Off unless it is configured."""
