"""Histories of a real cluster under faults: real programs, real networks, an observer outside, and a pure checker.

`schedule` draws the faults of a run from its seed, `cluster` starts the programs on `hosts`, `fault_kinds` carries out
faults, `clients` use the cluster, `observer` receives what processes report, `history` is what was recorded, `checker`
compares it with docs/concepts/guarantees.md, `timeline` draws it and `figures` sums it up. Run by ``make faults``.
"""
