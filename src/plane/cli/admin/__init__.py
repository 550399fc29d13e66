"""`plane admin`: what an operator asks of a controller, over its HTTP API. One file per command or close kin."""
