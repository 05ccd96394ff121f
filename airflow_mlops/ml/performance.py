"""How good were the predictions, now that outcomes have arrived?

An alarm needs both: the metric fell by ``max_drop`` or more against its value at promotion, and the
rows show that it is below that value at all (one-sided 95 %). The value at promotion is taken as
known. This sees concept drift, which the inputs do not show; it waits for labels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Performance
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.features import FeatureSchema, plain
from airflow_mlops.ml.joining import last_of_each, same_keys
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.paired import estimate
from airflow_mlops.ml.prediction import PREDICTION, PROBABILITY, SCORE

MIN_ROWS = 30
MIN_COVERAGE = 0.5
CONFIDENCE = 0.95

Verdict = Literal["ok", "drop", "pending_labels", "not_enough_data"]


@dataclass(frozen=True)
class PerformanceReport:
    """The metric on the rows that have both a prediction and an outcome, as people read it.

    :param low: one-sided 95 % bounds of ``value``, ``low`` ≤ ``high``; None when it was not computed.
    :param rows: predictions with an outcome; ``coverage`` is their share of all predictions.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all numbers finite."""
        return asdict(self) | {"duplicates": [*self.duplicates]}


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
) -> PerformanceReport:
    """Join predictions with outcomes and compare the metric with its value at promotion.

    :param capture: ``id_column``, ``prediction`` and the probability columns that
        :func:`~airflow_mlops.ml.prediction.predict_batches` made.
    :param labels: ``join_on`` (default: ``id_column``) and the target; rows without an outcome count as
        not arrived. Of rows with one id the last counts.
    :param baseline: the metric's value at promotion, as people read it (``log_loss`` positive).
    :param schema: of the model that predicted: target, classes, positive class.
    :param seed: of the bootstrap, for metrics that need one.
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

    def report(verdict: Verdict, sentence: str, *numbers: float | None) -> PerformanceReport:
        value, low, high = numbers or (None, None, None)
        return PerformanceReport(verdict, metric, baseline, value, low, high, rows, coverage, (twice, again), sentence)

    if coverage < MIN_COVERAGE:
        return report("pending_labels", f"labels are pending: {counted}, at least {MIN_COVERAGE:.0%} are needed")
    if rows < MIN_ROWS:
        return report("not_enough_data", f"not enough data: {counted}, at least {MIN_ROWS} are needed")

    y, predictions, n_classes = _codes(outcomes.loc[matched, schema.target], predicted.loc[matched], schema)
    scorer.check_task("regression" if n_classes is None else "classification", n_classes)
    if scorer.is_ranking and (y == y[0]).all():
        return report("not_enough_data", f"not enough data: {counted}, all of one class, so there is no {metric}")
    found = estimate(scorer, y, predictions, n_classes=n_classes, seed=seed)
    bounds = found.bounds(CONFIDENCE)
    value = scorer.printed(found.value)
    reference = scorer.printed(baseline)  # as a score: higher is better
    fell = reference - found.value
    low, high = sorted(scorer.printed(b) for b in bounds) if bounds else (None, None)
    significant = bounds is not None and bounds[1] < reference
    large = fell >= config.max_drop - 1e-12  # 0.5 - 0.47 is not quite 0.03
    sentence = _sentence(scorer, value, baseline, bounds, fell, large, significant, config.max_drop) + f"; {counted}"
    return report("drop" if large and significant else "ok", sentence, value, low, high)


def _sentence(
    metric: Metric,
    value: float,
    baseline: float,
    bounds: tuple[float, float] | None,
    fell: float,
    large: bool,
    significant: bool,
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
    if large and significant:
        return f"{head}: {size}, and significant"
    return f"{head}: {size}" + (", but not significant" if large else "")


def _codes(
    outcomes: pd.Series, predicted: pd.DataFrame, schema: FeatureSchema
) -> tuple[np.ndarray, Predictions, int | None]:
    """Truth and predictions as the metrics take them: class codes, of two classes the positive is 1."""
    if schema.classes is None:
        y = pd.to_numeric(outcomes, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        if bad := int((~np.isfinite(y)).sum()):
            raise DataError(f"{bad:,} of {len(y):,} labels are not finite numbers", hint="correct monitor.labels")
        return y, Predictions(labels=predicted[PREDICTION].to_numpy(dtype=float)), None
    classes = [plain(c) for c in schema.classes]
    if len(classes) == 2 and schema.positive is not None:
        classes.sort(key=lambda c: c == schema.positive)
    y, labels = (
        _class_codes(v, classes, what) for v, what in ((outcomes, "labels"), (predicted[PREDICTION], "capture"))
    )
    proba = decision = None
    many = [f"{PROBABILITY}_{c}" for c in classes]
    if PROBABILITY in predicted:
        positive = predicted[PROBABILITY].to_numpy(dtype=float)
        proba = np.column_stack([1 - positive, positive])
    elif all(c in predicted for c in many):
        proba = predicted[many].to_numpy(dtype=float)
    elif SCORE in predicted:
        decision = predicted[SCORE].to_numpy(dtype=float)
    return y, Predictions(labels=labels, proba=proba, decision=decision), len(classes)


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
