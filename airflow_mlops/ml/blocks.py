"""Which holdout rows may depend on each other: those of one group, or of one stretch of time."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd

from airflow_mlops.config.blocks import MIN_BLOCKS
from airflow_mlops.config.models import Data, Evaluate, length
from airflow_mlops.exceptions import DataError

__all__ = ["MIN_BLOCKS", "block_codes", "block_words"]


def block_codes(rows: pd.DataFrame, data: Data, config: Evaluate) -> np.ndarray | None:
    """Number the blocks of the holdout's ``rows`` from 0, shape (n,); ``None`` where every row stands for itself.

    ``split.by: group``: its groups. ``split.by: time``: stretches of ``config.block``, days by default, counted from
    1970 in UTC. ``split.by: random``: none, unless ``config.block`` is set.

    :raises DataError: the time column is missing, has gaps, or does not hold times.
    """
    if config.block == "none":
        return None
    if data.split.by == "group":
        return pd.factorize(rows[str(data.split.column)])[0].astype(np.int64)
    stretch = length(config.block) or (timedelta(days=1) if data.split.by == "time" else None)
    if stretch is None:
        return None
    column = rows[str(data.timestamp)]
    try:
        numeric = pd.api.types.is_numeric_dtype(column)
        times = pd.to_datetime(column, utc=True, format=None if numeric else "ISO8601")
    except (ValueError, TypeError) as e:
        raise DataError(f"column {data.timestamp!r} does not hold times: {e}") from e
    if missing := int(times.isna().sum()):
        raise DataError(
            f"{missing} holdout rows have no value in {data.timestamp!r}, which evaluate.block counts in",
            hint="drop or repair them, or set evaluate.block to none",
        )
    nanoseconds = times.to_numpy(dtype="datetime64[ns]").astype(np.int64)
    whole = nanoseconds // int(stretch.total_seconds() * 1e9)
    return np.unique(whole, return_inverse=True)[1].astype(np.int64)


def block_words(data: Data, config: Evaluate) -> str:
    """What a block is called, in the plural: ``groups by customer``, ``blocks of 1d``."""
    if data.split.by == "group":
        return f"groups by {data.split.column}"
    return f"blocks of {config.block or '1d'}"
