"""How captures call what a model said; read by pages, so that nothing heavy is imported here."""

from __future__ import annotations

PREDICTION, PROBABILITY, SCORE, VERSION = "prediction", "probability", "score", "model_version"
KEY, MODEL_KEY = "key", "model_key"
"""In a fleet: the key of the row, and that of the model that served it."""


def is_output(column: str) -> bool:
    """Whether a column of a capture or a drift check is what the model said, not what it read."""
    return column in (PREDICTION, PROBABILITY, SCORE) or column.startswith(f"{PROBABILITY}_")
