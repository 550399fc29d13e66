"""A simulated cluster: the real decisions on virtual time, under faults that a seed draws.

`world` has the time, `database` a model of the statements that decide about keys, `machine` a drone with its watchdog
and its processes, `controller` the controllers and their clients, `faults` what goes wrong.
"""
