"""Data and prediction drift: is the current data still like the reference?

A column drifts when a change is both large and significant. Large: :class:`~airflow_mlops.config.
models.Drift` ``effect`` for numbers (Wasserstein distance in σ), half of it for shares of
categories, two points for the missing rate. Significant: at ``alpha`` for all tests of the check
together. Significance alone would call a million rows drifted for nothing, size alone thirty rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Drift
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.drift_statistics import Signal, column_signals

MISSING_POINTS = 0.02
KINDS = ("number", "category", "boolean")
_NAMED = 5  # columns named in the one-sentence summary

Verdict = Literal["drift", "no_drift", "not_enough_data"]


@dataclass(frozen=True)
class ColumnDrift:
    """What was found in one column.

    :param statistic: what ``effect`` measures: ``W1`` (in σ of the reference), ``L∞`` (share),
        ``new categories`` (share), ``missing rate`` (share), ``share off the constant``, or ``none``.
    :param p_value: uncorrected; the correction over all tests is in ``drifted``.
    """

    name: str
    kind: str
    statistic: str
    effect: float
    p_value: float
    drifted: bool
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all numbers finite."""
        return asdict(self)


@dataclass(frozen=True)
class DriftReport:
    """The decision over all columns; ``rows`` are those of reference and current."""

    verdict: Verdict
    columns: tuple[ColumnDrift, ...]
    sentence: str
    rows: tuple[int, int]
    skipped: tuple[str, ...] = ()

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        """The columns that drifted, in the order they were given."""
        return tuple(c for c in self.columns if c.drifted)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all numbers finite."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "rows": {"reference": self.rows[0], "current": self.rows[1]},
            "columns": [c.to_dict() for c in self.columns],
            "skipped": list(self.skipped),
        }


def check_drift(reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, str], config: Drift) -> DriftReport:
    """Compare the columns of ``kinds`` between two frames.

    :param reference: rows the model was trained on; ``current``: rows to compare.
    :param kinds: column name → ``number``, ``category`` or ``boolean``. Predictions are a column like
        any other. Columns that hold dates in either frame are skipped, and named in ``skipped``.
    :return: verdict ``not_enough_data`` when a side has fewer than ``config.min_rows`` rows.
    :raises DataError: for a kind that does not exist, or a column the reference does not have. A
        column that the current data lost is drift: all its values are missing.
    """
    _check_kinds(reference, kinds)
    rows = (len(reference), len(current))
    if min(rows) < config.min_rows:
        sentence = (
            f"not enough data: {rows[0]} reference and {rows[1]} current rows, at least {config.min_rows} are needed"
        )
        return DriftReport("not_enough_data", (), sentence, rows)

    skipped = [c for c in kinds if _is_date(reference[c]) or (c in current and _is_date(current[c]))]
    found: dict[str, list[Signal]] = {
        name: column_signals(
            reference[name],
            current[name] if name in current else pd.Series(np.nan, index=current.index),
            kind,
            effect=config.effect,
            missing_points=MISSING_POINTS,
            min_rows=config.min_rows,
        )
        for name, kind in kinds.items()
        if name not in skipped
    }
    limit = critical_p([s.p_value for signals in found.values() for s in signals], config.alpha, config.correction)
    columns = tuple(_judge(name, kinds[name], signals, limit) for name, signals in found.items())
    return _report(columns, rows, skipped)


def join_reports(reports: Sequence[DriftReport]) -> DriftReport:
    """Make one report of several on different columns; each was checked at its share of ``alpha``."""
    columns = tuple(c for report in reports for c in report.columns)
    rows = reports[0].rows
    skipped = [name for report in reports for name in report.skipped]
    short = [report for report in reports if report.verdict == "not_enough_data"]
    if short and not any(c.drifted for c in columns):
        return DriftReport("not_enough_data", columns, short[0].sentence, rows, tuple(skipped))
    return _report(columns, rows, skipped)


def _report(columns: tuple[ColumnDrift, ...], rows: tuple[int, int], skipped: Sequence[str]) -> DriftReport:
    drifted = sorted((c for c in columns if c.drifted), key=lambda c: (c.p_value, -c.effect))
    return DriftReport(
        "drift" if drifted else "no_drift", columns, _summary(drifted, len(columns), skipped), rows, tuple(skipped)
    )


def critical_p(p_values: Sequence[float], alpha: float, correction: str) -> float:
    """The largest p-value that is significant at ``alpha`` over all tests; -1 if none is.

    Bonferroni bounds the chance of one false alarm, Benjamini–Hochberg (1995) the expected share of
    false ones among the alarms.
    """
    count = len(p_values)
    if not count:
        return -1.0
    if correction == "bonferroni":
        return alpha / count
    ordered = np.sort(np.asarray(p_values))
    passing = ordered[ordered <= alpha * np.arange(1, count + 1) / count]
    return float(passing[-1]) if len(passing) else -1.0


def _check_kinds(reference: pd.DataFrame, kinds: Mapping[str, str]) -> None:
    if not kinds:
        raise DataError("there is no column to check for drift", hint="the model needs at least one feature")
    if wrong := {n: k for n, k in kinds.items() if k not in KINDS}:
        raise DataError(f"unknown kinds of columns: {wrong}", hint=f"use {', '.join(KINDS)}")
    if absent := [n for n in kinds if n not in reference]:
        raise DataError(
            f"the reference has no column {', '.join(map(repr, absent))}",
            hint="the model's schema and its reference data do not belong together; train again",
        )


def _is_date(column: pd.Series) -> bool:
    return pd.api.types.is_datetime64_any_dtype(column) or isinstance(column.dtype, pd.PeriodDtype)


def _judge(name: str, kind: str, signals: list[Signal], limit: float) -> ColumnDrift:
    if not signals:
        return ColumnDrift(name, kind, "none", 0.0, 1.0, False, f"{name}: too few values to compare")
    alarms = [s for s in signals if s.effect >= s.threshold and s.p_value <= limit]
    shown = max(alarms, key=lambda s: s.effect / s.threshold) if alarms else signals[0]
    texts = "; ".join(s.text for s in alarms) if alarms else shown.text
    verdict = "drifted" if alarms else "no drift"
    sentence = f"{name}: {verdict}, {texts} (limit {shown.threshold:.3g}, {_p(shown.p_value)})"
    return ColumnDrift(name, kind, shown.statistic, float(shown.effect), float(shown.p_value), bool(alarms), sentence)


def _p(value: float) -> str:
    return f"p {value:.1g}" if value >= 1e-16 else "p < 1e-16"


def _summary(drifted: list[ColumnDrift], count: int, skipped: Sequence[str]) -> str:
    tail = f"; dates not compared: {', '.join(skipped)}" if skipped else ""
    if not drifted:
        return f"no drift in {count} columns{tail}"
    units = {"W1": "W1 {:.2g} σ"}
    parts = [
        f"{c.name} ({units.get(c.statistic, c.statistic + ' {:.2g}').format(c.effect)}, {_p(c.p_value)})"
        for c in drifted[:_NAMED]
    ]
    more = f" and {len(drifted) - _NAMED} more" if len(drifted) > _NAMED else ""
    return f"drift in {len(drifted)} of {count} columns: {', '.join(parts)}{more}{tail}"
