"""The watchdog: a small process beside the drone that kills backends whose leases have expired.

`main` is its program, `killer` kills backends, `engine_requests` talks to Docker engines, and `messages` are sent by
the drone. All of these import only the standard library. `supervisor` is the drone's side.
"""
