"""The command line: one file per command. Only here arguments and the environment are read."""
