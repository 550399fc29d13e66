"""What the programs of a run import at their start: a time of day that can be set, and planted bugs.

The programs have this folder in PYTHONPATH, and Python imports `sitecustomize` before anything else.
"""
