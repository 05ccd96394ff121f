"""Evidently as a judge (``monitor.drift.engine: evidently``) and as a painter, always by methods that are named.

Its scores have no error rate: on few rows they alarm without drift, and missing values are dropped silently.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Drift
from airflow_mlops.ml.categories import label
from airflow_mlops.ml.drift import ColumnDrift, DriftReport, not_enough, summarised
from airflow_mlops.ml.drift_values import to_numbers

METHODS = {"number": "wasserstein", "category": "jensenshannon"}
"""Wasserstein distance in σ of the reference; Jensen–Shannon distance."""
TOO_CLOSE = "the values lie too close together for their size"


class Pair(NamedTuple):
    """One column of both sides as Evidently takes it; ``kind`` is ``number`` or ``category``."""

    kind: str
    reference: pd.Series
    current: pd.Series
    threshold: float


def run(pairs: Mapping[str, Pair]) -> Any:
    """Let Evidently compare the columns; left to itself it tries out, column by column, which method fits.

    :param pairs: at least one; each side has a value.
    :return: Evidently's snapshot.
    """
    # It looks for this when it is imported and again when it is used: no statistics about users leave here.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(
        numerical_columns=[n for n, p in pairs.items() if p.kind == "number"],
        categorical_columns=[n for n, p in pairs.items() if p.kind == "category"],
    )
    reference, current = (
        Dataset.from_pandas(pd.DataFrame({n: getattr(p, side) for n, p in pairs.items()}), data_definition=definition)
        for side in ("reference", "current")
    )
    metrics: list[Any] = [ValueDrift(column=n, method=METHODS[p.kind], threshold=p.threshold) for n, p in pairs.items()]
    return Report(metrics).run(current, reference)


def binned(pair: Pair) -> bool:
    """Whether Evidently can cut the values of either side into its ten bins, as it does whatever the method.

    It fails where numbers lie closer together than float64 can divide at their size: a constant of 1e17.
    """
    try:
        for side in (pair.reference, pair.current) if pair.kind == "number" else ():
            np.histogram(side.dropna(), bins=10)
    except ValueError:
        return False
    return True


def scores(pairs: Mapping[str, Pair]) -> dict[str, float]:
    """Evidently's score of each column: a distance, larger for larger changes."""
    found = run(pairs).dict()["metrics"]
    return {metric["config"]["column"]: float(metric["value"]) for metric in found}


def check_by_evidently(
    reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, str], config: Drift, rows: tuple[int, int]
) -> DriftReport:
    """Judge by Evidently's scores: a column drifts from ``config.effect`` on, without any test.

    :param reference: a sample of rows × columns of ``kinds``; likewise ``current``.
    :param rows: how many rows either side has in all, for ``config.min_rows``.
    """
    if min(rows) < config.min_rows:
        return not_enough(rows, config.min_rows)
    pairs, why = {}, {}
    for name, kind in kinds.items():
        ref, cur = (as_numbers(f[name]) if kind == "number" else as_texts(f[name], kind) for f in (reference, current))
        pair = Pair("number" if kind == "number" else "category", ref, cur, config.effect)
        if not (ref.notna().any() and cur.notna().any()):
            why[name] = "a side has no values"
        elif not binned(pair):
            why[name] = TOO_CLOSE
        else:
            pairs[name] = pair
    found = scores(pairs) if pairs else {}
    columns = []
    for name, kind in kinds.items():
        if name not in found:
            columns.append(ColumnDrift(name, kind, "none", 0.0, None, False, f"{name}: {why[name]}"))
            continue
        score, method = found[name], METHODS[pairs[name].kind]
        drifted = score >= config.effect
        said = f"Evidently's {method} {score:.3g} (limit {config.effect:.3g})"
        sentence = f"{name}: {'drifted' if drifted else 'no drift'}, {said}"
        columns.append(ColumnDrift(name, kind, method, score, None, drifted, sentence, config.effect))
    return summarised(tuple(columns), rows, [], few="not compared")


def as_numbers(values: pd.Series) -> pd.Series:
    """The values as float64 with a fresh index; what is not a number is missing."""
    return pd.Series(to_numbers(values))


def as_texts(values: pd.Series, kind: str) -> pd.Series:
    """The values as category labels with a fresh index; missing ones stay missing."""
    return values.astype(object).reset_index(drop=True).map(
        lambda v: label(v, boolean=kind == "boolean"), na_action="ignore"
    )  # fmt: skip
