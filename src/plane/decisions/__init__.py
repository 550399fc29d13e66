"""Rules as pure functions and small state machines.

Nothing here does I/O, reads a clock or draws a random number. The shell passes the time, does what is returned, and
calls again when the result says so.
"""
