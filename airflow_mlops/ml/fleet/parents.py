"""How the keys of parents are told from others; read by pages, so that nothing heavy is imported here."""

from __future__ import annotations

ALL = "*"
"""Key of the model of all rows."""
GROUP = "/*"
"""How the key of a group's model ends."""


def is_parent(key: str) -> bool:
    """Whether a key names the model of a group, or of all rows."""
    return key == ALL or key.endswith(GROUP)
