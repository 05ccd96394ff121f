"""The read-only API behind the MLOps pages; :mod:`.models` is what it answers."""
