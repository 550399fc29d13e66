"""`plane doctor`: checks a machine and a configuration, before and after the start. `examination.examine` runs it."""
