"""The watchdog: a small process beside the drone that kills backends whose leases have expired.

`main` is its program, `killer` kills, `engine_requests` talks to a Docker engine, `messages` is what the drone sends;
all of these import nothing but the standard library. `supervisor` is the drone's side.
"""
