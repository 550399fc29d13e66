"""`plane admin`: commands for operators, over the HTTP API of a controller."""
