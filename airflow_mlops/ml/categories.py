"""A category as text, the same in every place that compares or shows it."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any


def label(value: Any, *, boolean: bool = False) -> str:
    """A category as text: 1, 1.0 and "1" are one, and so are True, 1 and "true" in a boolean column.

    NumPy's numbers are ``Real``, and its booleans are not.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        value = math.trunc(value) if float(value).is_integer() else value
    text = str(value)
    if boolean:
        return {"1": "True", "0": "False", "true": "True", "false": "False"}.get(text.lower(), text)
    return text
