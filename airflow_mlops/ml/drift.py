"""Data and prediction drift: is the current data still like the reference?

A column drifts when a change is both large and significant. Large: :class:`~airflow_mlops.config.
models.Drift` ``effect`` for numbers (Wasserstein distance in σ), half of it for shares of
categories, two points for the missing rate. Significant: at ``alpha`` for all tests of the check
together. Significance alone would call a million rows drifted for nothing, size alone thirty rows.

Either side is seen through a :class:`~airflow_mlops.ml.drift_profile.Profile` of the reference, so that it
makes no difference whether its rows are there or only what was remembered of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Drift
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.drift_counts import BATCH_ROWS, Categories, CategoryCounter, NumberCounter, Numbers
from airflow_mlops.ml.drift_profile import Profile, make_profile
from airflow_mlops.ml.drift_statistics import Signal, column_signals, worth
from airflow_mlops.ml.drift_values import to_numbers

MISSING_POINTS = 0.02
FEWEST = 30
"""Independent rows that a side must be worth for its values to be compared."""
KINDS = ("number", "category", "boolean", "datetime")
_SHOWN_FACTOR = 1.5  # from here on a sentence tells how many independent rows there are
TOGETHER = "all columns together"
TOGETHER_ROWS = 5000
_NAMED = 5  # columns named in the one-sentence summary

Verdict = Literal["drift", "no_drift", "not_enough_data"]


@dataclass(frozen=True)
class ColumnDrift:
    """What was found in one column.

    :param statistic: what ``effect`` measures: ``W1`` (in σ of the reference), ``L∞`` (share),
        ``new categories`` (share), ``missing rate`` (share), ``share off the constant``, or ``none``.
    :param p_value: not corrected for the number of tests; that correction is in ``drifted``. None: there was no test.
    :param threshold: from which ``effect`` on a change is large enough, in its unit. None: nothing was compared.
    """

    name: str
    kind: str
    statistic: str
    effect: float
    p_value: float | None
    drifted: bool
    sentence: str
    threshold: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all numbers finite."""
        return asdict(self)


@dataclass(frozen=True)
class DriftReport:
    """The decision over all columns; ``rows`` are those of reference and current.

    ``skipped``: columns that were not compared.
    """

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


def check_drift(
    reference: pd.DataFrame | Profile,
    current: pd.DataFrame | Iterable[pd.DataFrame],
    kinds: Mapping[str, str],
    config: Drift,
    samples: Callable[[], tuple[pd.DataFrame, pd.DataFrame]] | None = None,
) -> DriftReport:
    """Compare the columns of ``kinds`` between two sets of rows.

    :param reference: rows the model was trained on, or their profile.
    :param current: rows to compare; or batches of them, of which one is in memory at a time. The order of rows
        counts on both sides: rows that are like their neighbours are worth fewer.
    :param kinds: column name → ``number``, ``category``, ``boolean`` or ``datetime``. Predictions are a column like
        any other. Columns that hold dates and are not called so are skipped, and named in ``skipped``.
    :param samples: for ``config.multivariate``, rows of reference and current to be told apart by all their columns;
        called when ``current`` has been read. Default: some of the rows of both, where both are frames.
    :return: verdict ``not_enough_data`` when a side has fewer than ``config.min_rows`` rows.
    :raises DataError: for a kind that does not exist, or a column the reference does not have. A
        column that the current data lost is drift: all its values are missing.
    """
    _check_kinds(reference.columns if isinstance(reference, Profile) else reference, kinds)
    if config.multivariate and samples is None:
        samples = _both(reference, current, kinds)
    batches = [current] if isinstance(current, pd.DataFrame) else current
    skipped: set[str] = set()
    if isinstance(reference, pd.DataFrame):
        skipped |= {name for name, kind in kinds.items() if kind != "datetime" and _is_date(reference[name])}
        reference = make_profile(reference, {n: k for n, k in kinds.items() if n not in skipped})
    counters = {name: reference.columns[name].counter() for name in kinds if name not in skipped}
    rows = 0
    for batch in batches:
        rows += len(batch)
        skipped |= {n for n in counters if kinds[n] != "datetime" and n in batch and _is_date(batch[n])}
        for name, counter in counters.items():
            if name not in skipped:
                _count(counter, batch, name, kinds[name])
    used = {n: c for n, c in counters.items() if n not in skipped}
    return _decide(reference, used, rows, kinds, config, skipped, samples if config.multivariate else None)


def _both(reference: Any, current: Any, kinds: Mapping[str, str]) -> Callable[[], tuple[pd.DataFrame, pd.DataFrame]]:
    """Rows of two frames at equal distances; columns that only one of them has show alone."""
    if not (isinstance(reference, pd.DataFrame) and isinstance(current, pd.DataFrame)):
        raise DataError(
            "multivariate drift needs rows of both sides, and a profile or batches are none",
            hint="pass samples=, or two DataFrames",
        )
    names = [n for n, k in kinds.items() if n in current and (k == "datetime" or not _is_date(current[n]))]
    names = [n for n in names if kinds[n] == "datetime" or not _is_date(reference[n])]
    return lambda: (_some(reference[names]), _some(current[names]))


def _some(frame: pd.DataFrame) -> pd.DataFrame:
    rows = min(len(frame), TOGETHER_ROWS)
    return frame.iloc[np.arange(rows) * len(frame) // max(rows, 1)]


def _count(counter: NumberCounter | CategoryCounter, batch: pd.DataFrame, name: str, kind: str) -> None:
    """Count one column of a batch, a part of its rows at a time."""
    for first in range(0, len(batch), BATCH_ROWS):
        part = slice(first, first + BATCH_ROWS)
        values = batch[name].iloc[part] if name in batch else pd.Series(np.nan, index=batch.index[part])
        if isinstance(counter, NumberCounter):
            counter.add(to_numbers(values, kind))
        else:
            counter.add(values)


def _decide(
    reference: Profile,
    counters: Mapping[str, NumberCounter | CategoryCounter],
    current_rows: int,
    kinds: Mapping[str, str],
    config: Drift,
    skipped: Collection[str],
    samples: Callable[[], tuple[pd.DataFrame, pd.DataFrame]] | None,
) -> DriftReport:
    rows = (reference.rows, current_rows)
    if min(rows) < config.min_rows:
        return not_enough(rows, config.min_rows)
    sides = {name: counter.finish() for name, counter in counters.items()}
    known = {name: reference.columns[name] for name in sides}
    if config.independent_rows:
        sides = {name: side.independent() for name, side in sides.items()}
        known = {name: replace(column, side=column.side.independent()) for name, column in known.items()}
    found: dict[str, list[Signal]] = {}
    for name, side in sides.items():
        # As many rows as were asked for, and as many independent ones as the tests need in any case.
        enough = min(known[name].side.values, side.values) >= config.min_rows
        least = FEWEST if enough else math.inf
        found[name] = column_signals(
            known[name], side, effect=config.effect, missing_points=MISSING_POINTS, min_rows=least
        )  # fmt: skip
    together = _together(*samples(), kinds, config) if samples is not None else []
    if samples is not None:
        found[TOGETHER] = together
    limit = critical_p([s.p_value for signals in found.values() for s in signals], config.alpha, config.correction)
    columns = tuple(
        _judge(name, kinds[name], signals, limit, _worth(known[name].side, sides[name]))
        if name in sides
        else _judge(name, "together", signals, limit, "")
        for name, signals in found.items()
    )
    return summarised(columns, rows, [n for n in kinds if n in skipped])


def _together(reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, str], config: Drift) -> list[Signal]:
    from airflow_mlops.ml.domain import domain_signal  # scikit-learn's boosting is slow to import, and not the rule

    compared = {n: k for n, k in kinds.items() if n in reference.columns}
    signal = domain_signal(reference, current, compared, config.effect, config.min_rows) if compared else None
    return [signal] if signal is not None else []


def not_enough(rows: tuple[int, int], least: int) -> DriftReport:
    """The report of a check that cannot be made; ``rows`` of reference and current."""
    sentence = f"not enough data: {rows[0]:,} reference and {rows[1]:,} current rows, at least {least:,} are needed"
    return DriftReport("not_enough_data", (), sentence, rows)


def _worth(ref: Numbers | Categories, cur: Numbers | Categories) -> str:
    """What a sentence says of rows that hang together; nothing where they do not."""
    told = [
        f"{side.values:,} {name} rows are worth {worth(side):,.0f} independent ones"
        for name, side in (("reference", ref), ("current", cur))
        if side.factor >= _SHOWN_FACTOR
    ]
    return "; " + ", ".join(told) if told else ""


def summarised(
    columns: tuple[ColumnDrift, ...],
    rows: tuple[int, int],
    skipped: Sequence[str],
    *,
    few: str = "too few independent values to compare",
) -> DriftReport:
    """The report on columns that have been judged: ``drift`` where one has drifted.

    :param few: what the sentence says of columns without a statistic.
    """
    drifted = sorted((c for c in columns if c.drifted), key=lambda c: (c.p_value or 0.0, -c.effect))
    none = [c.name for c in columns if c.statistic == "none"]
    verdict: Verdict = "drift" if drifted else "no_drift"
    if columns and len(none) == len(columns):
        verdict = "not_enough_data"
    tail = f"; {few}: {_listed(none)}" if none else ""
    tail += f"; dates not compared: {', '.join(skipped)}" if skipped else ""
    return DriftReport(verdict, columns, _summary(drifted, len(columns), len(none), tail), rows, tuple(skipped))


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


def _check_kinds(reference: Container[str], kinds: Mapping[str, str]) -> None:
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


def _judge(name: str, kind: str, signals: list[Signal], limit: float, worth: str) -> ColumnDrift:
    if not signals:
        return ColumnDrift(name, kind, "none", 0.0, 1.0, False, f"{name}: too few values to compare{worth}")
    alarms = [s for s in signals if s.effect >= s.threshold and s.p_value <= limit]
    shown = max(alarms, key=lambda s: s.effect / s.threshold) if alarms else signals[0]
    texts = "; ".join(f"{s.text} (limit {s.threshold:.3g}, {_p(s.p_value)})" for s in alarms or [shown])
    sentence = f"{name}: {'drifted' if alarms else 'no drift'}, {texts}{worth}"
    return ColumnDrift(
        name,
        kind,
        shown.statistic,
        float(shown.effect),
        float(shown.p_value),
        bool(alarms),
        sentence,
        float(shown.threshold),
    )


def _p(value: float) -> str:
    return f"p {value:.1g}" if value >= 1e-16 else "p < 1e-16"


def _summary(drifted: list[ColumnDrift], count: int, none: int, tail: str) -> str:
    if count and none == count:
        return f"not enough data{tail}"
    if not drifted:
        return f"no drift in {_columns(count - none)}{tail}"
    units = {"W1": "W1 {:.2g} σ"}
    parts = [
        f"{c.name} ({units.get(c.statistic, c.statistic + ' {:.2g}').format(c.effect)}"
        f"{'' if c.p_value is None else ', ' + _p(c.p_value)})"
        for c in drifted
    ]
    return f"drift in {len(drifted)} of {_columns(count)}: {_listed(parts)}{tail}"


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _listed(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return f"{', '.join(parts[:_NAMED])}{more}"
