"""The role `plane executor`: a runtime in a process of its own, for a drone with ``--executor-socket``."""
