"""What is decided: rules as pure functions and small state machines.

Nothing here does I/O, reads a clock or draws a random number: the shell of the same stem gives `now`, does
what is returned, and asks again when told to.
"""
