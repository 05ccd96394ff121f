"""How good were the predictions, now that outcomes have arrived?

An alarm needs both: the metric fell by ``max_drop`` or more against its value at promotion, and the
rows show that it is worse than at promotion at all (one-sided 95 %). How sure the value at promotion
is counts too: the two intervals are joined to one of their difference by recovering the variances on
the side that matters (MOVER; Zou & Donner 2008, *Statistics in Medicine* 27, 1693-1702). Rows that may
depend on each other count by blocks, as on the holdout, where there are enough of them. This sees
concept drift, which the inputs do not show; it waits for labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import norm

from airflow_mlops.config.models import Performance
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.blocks import MIN_BLOCKS
from airflow_mlops.ml.features import FeatureSchema, plain
from airflow_mlops.ml.joining import last_of_each, same_keys
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.outputs import PREDICTION, PROBABILITY, SCORE, is_output
from airflow_mlops.ml.paired import estimate
from airflow_mlops.ml.selective_labels import Selection, check_selection

MIN_ROWS = 30
CONFIDENCE = 0.95
# The value at promotion was kept with a two-sided interval; from its ends to one-sided ones, both at 95 %.
_ONE_SIDED = float(norm.ppf(CONFIDENCE) / norm.ppf((1 + CONFIDENCE) / 2))

Verdict = Literal["ok", "drop", "pending_labels", "not_enough_data"]
Cause = Literal["concept drift", "data drift", "feature skew", "unknown"]


@dataclass(frozen=True)
class PerformanceReport:
    """The metric on the rows that have both a prediction and an outcome, as people read it.

    :param low: one-sided 95 % bounds of ``value``, ``low`` ≤ ``high``; None when it was not computed.
    :param worse_by: fall against the value at promotion, positive is worse; ``at_least``: its lower bound, one-sided
        95 %. None when it was not computed.
    :param rows: predictions with an outcome; ``coverage`` is their share of all predictions.
    :param selection: set where outcomes came for one side of the predictions only.
    :param cause: of a drop, by what other checks say about the same window.
    :param duplicates: rows left out because a later one has the same id: of predictions, and of outcomes.
    """

    verdict: Verdict
    metric: str
    baseline: float
    value: float | None
    low: float | None
    high: float | None
    rows: int
    coverage: float
    duplicates: tuple[int, int]
    sentence: str
    worse_by: float | None = None
    at_least: float | None = None
    selection: Selection | None = None
    cause: Cause | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all numbers finite."""
        selection = self.selection.to_dict() if self.selection else None
        return asdict(self) | {"duplicates": [*self.duplicates], "selection": selection}


def check_performance(
    capture: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    metric: str,
    baseline: float,
    config: Performance,
    schema: FeatureSchema,
    id_column: str,
    join_on: str | None = None,
    seed: int = 7,
    baseline_bounds: tuple[float, float] | None = None,
    others: Mapping[str, Mapping[str, Any]] | None = None,
    blocks: Callable[[pd.DataFrame], np.ndarray | None] | None = None,
) -> PerformanceReport:
    """Join predictions with outcomes and compare the metric with its value at promotion.

    :param capture: ``id_column``, ``prediction`` and the probability columns that
        :func:`~airflow_mlops.ml.prediction.predict_batches` made.
    :param labels: ``join_on`` (default: ``id_column``) and the target; rows without an outcome count as
        not arrived. Of rows with one id the last counts.
    :param baseline: the metric's value at promotion, as people read it (``log_loss`` positive).
    :param schema: of the model that predicted: target, classes, positive class.
    :param seed: of the bootstrap, for metrics that need one.
    :param baseline_bounds: two-sided 95 % interval of ``baseline``; without it the value counts as exact.
    :param others: results of the checks ``drift`` and ``skew`` of the same window, to tell a drop's cause.
    :param blocks: numbers the blocks of captured rows, see :func:`~airflow_mlops.ml.blocks.block_codes`; without it, or
        with fewer than 12 blocks, rows count as independent, and the sentence says so.
    :raises DataError: a column is missing, or an outcome is of a class the model does not know.
    :raises EvaluationError: the metric does not exist or does not fit the model.
    """
    key = join_on or id_column
    for frame, names, what in (
        (capture, (id_column, PREDICTION), "captured predictions"),
        (labels, (key, schema.target), "labels"),
    ):
        if absent := [n for n in names if n not in frame.columns]:
            raise DataError(
                f"the {what} have no column {', '.join(map(repr, absent))}",
                hint=f"monitor.labels needs id and target; the columns are: {', '.join(map(str, frame.columns))}",
            )
    scorer = Metric(metric)
    predicted, known = capture.dropna(subset=[id_column]), labels.dropna(subset=[key, schema.target])
    left, right = same_keys(predicted[id_column], known[key])
    predicted, twice = last_of_each(predicted, left)
    outcomes, again = last_of_each(known, right)
    matched = predicted.index.intersection(outcomes.index, sort=False)
    rows, coverage = len(matched), len(matched) / len(predicted) if len(predicted) else 0.0
    counted = f"{rows:,} of {len(predicted):,} predictions have a label"
    if twice or again:
        counted += f" ({twice:,} predictions and {again:,} labels came twice, the last counts)"

    selection = check_selection(
        predicted, predicted.index.isin(outcomes.index), classes=schema.classes is not None
    )  # fmt: skip

    def report(verdict: Verdict, sentence: str, *numbers: float | None, **more: Any) -> PerformanceReport:
        value, low, high = numbers or (None, None, None)
        told = sentence + (f"; {selection.sentence}" if selection else "")
        return PerformanceReport(
            verdict, metric, baseline, value, low, high, rows, coverage, (twice, again), told,
            selection=selection, **more,
        )  # fmt: skip

    if coverage < config.min_coverage:
        return report("pending_labels", f"labels are pending: {counted}, at least {config.min_coverage:.0%} are needed")
    if rows < MIN_ROWS:
        return report("not_enough_data", f"not enough data: {counted}, at least {MIN_ROWS} are needed")

    y, n_classes = truth_of(outcomes.loc[matched, schema.target], schema)
    predictions = said_of(predicted.loc[matched], schema)
    scorer.check_task("regression" if n_classes is None else "classification", n_classes)
    if scorer.is_ranking and (y == y[0]).all():
        return report("not_enough_data", f"not enough data: {counted}, all of one class, so there is no {metric}")
    codes = blocks(predicted.loc[matched]) if blocks is not None else None
    found = estimate(scorer, y, predictions, n_classes=n_classes, seed=seed, blocks=codes)
    few = codes is not None and (found.blocks or 0) < MIN_BLOCKS
    if few:
        found = estimate(scorer, y, predictions, n_classes=n_classes, seed=seed)
    bounds = found.bounds(CONFIDENCE)
    value = scorer.printed(found.value)
    low, high = sorted(scorer.printed(b) for b in bounds) if bounds else (None, None)
    fell = scorer.printed(baseline) - found.value  # as scores: higher is better
    least = _at_least(scorer, found.value, bounds, baseline, baseline_bounds)
    large = fell >= config.max_drop - 1e-12  # 0.5 - 0.47 is not quite 0.03
    drop = large and least is not None and least > 0
    cause = _cause(others or {}) if drop else None
    sentence = _sentence(scorer, value, bounds, baseline, fell, least, large, config.max_drop)
    if cause is not None:
        sentence += f": {_CAUSES[cause]}"
    notes = "" if baseline_bounds else "; the value at promotion counts as exact, its interval was not kept"
    if few and codes is not None:
        notes += f"; rows count as independent: {int(codes.max()) + 1} blocks are too few"
    return report(
        "drop" if drop else "ok", f"{sentence}; {counted}{notes}", value, low, high,
        worse_by=fell, at_least=least, cause=cause,
    )  # fmt: skip


_CAUSES: dict[Cause, str] = {
    "concept drift": "concept drift, as the inputs did not drift in this window",
    "data drift": "the inputs drifted in this window, which may be the cause",
    "feature skew": "feature skew was found in this window, which may be the cause",
    "unknown": "whether the inputs drifted is not known, so this may be concept drift or not",
}


def _cause(others: Mapping[str, Mapping[str, Any]]) -> Cause:
    """What the other checks of the window leave as the reason of a drop."""
    drift, skew = others.get("drift") or {}, others.get("skew") or {}
    if skew.get("verdict") == "skew":
        return "feature skew"
    if drift.get("verdict") not in ("drift", "no_drift"):
        return "unknown"
    # What drifts in the predictions alone follows from the inputs, or is no reason.
    moved = [str(c["name"]) for c in drift.get("columns") or () if c.get("drifted")]
    return "data drift" if any(not is_output(name) for name in moved) else "concept drift"


def _at_least(
    metric: Metric,
    score: float,
    bounds: tuple[float, float] | None,
    baseline: float,
    baseline_bounds: tuple[float, float] | None,
) -> float | None:
    """Lower bound of the fall, one-sided at 95 %; ``None`` where nothing is known of how sure the score is."""
    if bounds is None:
        return None
    reference = metric.printed(baseline)
    # As a score the lower end of the value at promotion is the one nearer to ours.
    lower = min(metric.printed(b) for b in baseline_bounds) if baseline_bounds else reference
    return reference - score - math.hypot(bounds[1] - score, _ONE_SIDED * (reference - lower))


def _sentence(
    metric: Metric,
    value: float,
    bounds: tuple[float, float] | None,
    baseline: float,
    fell: float,
    least: float | None,
    large: bool,
    max_drop: float,
) -> str:
    if bounds is None:
        sure = "how sure is unknown"
    else:
        side = "at least" if metric.lower_is_better else "at most"
        sure = f"{CONFIDENCE:.0%} sure: {side} {metric.printed(bounds[1]):.4g}"
    head = f"{metric.name} {value:.4g} ({sure}) against {baseline:.4g} at promotion"
    if fell <= 0:
        return f"{head}: not worse"
    size = f"worse by {fell:.4g}, limit {max_drop:.4g}"
    if least is not None and least > 0:
        return f"{head}: {size}, and significant (by at least {least:.2g})"
    return f"{head}: {size}" + (", but not significant" if large else "")


def said_of(predicted: pd.DataFrame, schema: FeatureSchema) -> Predictions:
    """Captured predictions as the metrics take them: class codes, of two classes the positive is 1."""
    if schema.classes is None:
        return Predictions(labels=predicted[PREDICTION].to_numpy(dtype=float))
    classes = _ordered(schema)
    labels = _class_codes(predicted[PREDICTION], classes, "capture")
    proba = decision = None
    many = [f"{PROBABILITY}_{c}" for c in classes]
    if PROBABILITY in predicted:
        positive = predicted[PROBABILITY].to_numpy(dtype=float)
        proba = np.column_stack([1 - positive, positive])
    elif all(c in predicted for c in many):
        proba = predicted[many].to_numpy(dtype=float)
    elif SCORE in predicted:
        decision = predicted[SCORE].to_numpy(dtype=float)
    return Predictions(labels=labels, proba=proba, decision=decision)


def truth_of(outcomes: pd.Series, schema: FeatureSchema) -> tuple[np.ndarray, int | None]:
    """Outcomes in the same codes, and how many classes there are."""
    if schema.classes is None:
        y = pd.to_numeric(outcomes, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        if bad := int((~np.isfinite(y)).sum()):
            raise DataError(f"{bad:,} of {len(y):,} labels are not finite numbers", hint="correct monitor.labels")
        return y, None
    classes = _ordered(schema)
    return _class_codes(outcomes, classes, "labels"), len(classes)


def _ordered(schema: FeatureSchema) -> list[Any]:
    classes = [plain(c) for c in schema.classes or ()]
    if len(classes) == 2 and schema.positive is not None:
        classes.sort(key=lambda c: c == schema.positive)
    return classes


def _class_codes(values: pd.Series, classes: list[Any], what: str) -> np.ndarray:
    places = {c: i for i, c in enumerate(classes)}
    texts = {str(c): i for i, c in enumerate(classes)}
    found, unique = pd.factorize(values.to_numpy(dtype=object))
    codes = []
    for value in map(plain, unique):
        code = places.get(value, texts.get(str(value)))
        if code is None:
            raise DataError(
                f"the {what} hold the class {value!r}, and the model knows {classes[:10]!r}",
                hint="classes must be the same text or number everywhere; for a new class train a new model",
            )
        codes.append(code)
    return np.asarray(codes, dtype=np.int64)[found]
