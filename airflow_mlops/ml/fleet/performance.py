"""How good were the predictions of a fleet, key by key, now that outcomes have arrived?

A key alarms where its metric fell by ``max_drop`` or more against its score at training, and the fall is significant
among all keys: by Benjamini & Hochberg's procedure (1995, *JRSS B* 57, 289-300) at most 5 % of the alarms are expected
to be false, and where no model has become worse the probability of any alarm is at most 5 %. Of the score at training
only the number of rows is known that it stands on; its standard error is taken as that of so many rows like the ones
that are judged, which it is where nothing has changed. Losses are compared by their logarithm, shares like the ROC AUC
by that of their odds: there this holds best, and few rows are least skewed (delta method). A share of right predictions
is compared by Fisher's exact test.
"""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import hypergeom

from airflow_mlops.config.models import Data, Evaluate, Labels, Performance
from airflow_mlops.exceptions import ConfigError, DataNotFound, EvaluationError
from airflow_mlops.ml.blocks import MIN_BLOCKS, block_codes
from airflow_mlops.ml.data import read_batches
from airflow_mlops.ml.drift import critical_p
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.fleet.alarms import put_alarms
from airflow_mlops.ml.fleet.partition import Log
from airflow_mlops.ml.fleet.served import Served
from airflow_mlops.ml.fleet.served_drift import served_versions
from airflow_mlops.ml.joining import last_of_each, same_keys
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.outcomes import watched_metric
from airflow_mlops.ml.outputs import KEY, is_output
from airflow_mlops.ml.paired import Estimate, estimate
from airflow_mlops.ml.performance import CONFIDENCE, MIN_ROWS, said_of, truth_of
from airflow_mlops.registry.registry import Registry, Version
from airflow_mlops.store import put_blob
from airflow_mlops.store.base import Store

_NAMED, _TOLD = 5, 10


@dataclass(frozen=True)
class Judged:
    """The predictions of one key.

    :param value: the metric as people read it; ``baseline``: at training.
    :param fell: as a score, positive is worse.
    :param p_value: of a fall of 0 or less; 1 where the fall is too small to be an alarm.
    :param single: its rows count one by one, as their blocks are too few.
    """

    key: str
    version: int
    rows: int
    value: float
    baseline: float
    fell: float
    p_value: float
    single: bool = False


def fall_p_value(metric: Metric, found: Estimate, baseline: float, baseline_rows: int) -> float:
    """The p-value of no fall, one-sided.

    :param found: the score now. :param baseline: the score at training, higher is better, on so many rows.
    """
    if found.counts is not None and metric.scorer_name == "accuracy":
        right, rows = found.counts[0], found.counted
        before = round(baseline * baseline_rows)
        return float(hypergeom.cdf(right, rows + baseline_rows, right + before, rows))
    if found.se is None or not math.isfinite(found.se) or found.se == 0:
        return 1.0
    now, then = _badness(metric, found.value), _badness(metric, baseline)
    if now is None or then is None:
        now, then = _Badness(-found.value, -1.0, 0.0), _Badness(-baseline, -1.0, 0.0)
    ratio = found.rows / max(baseline_rows, 1)
    se = found.se * abs(now.slope)
    skew = -found.skew - 3 * found.se * now.bend / now.slope
    fall = Estimate(
        now.value - then.value,
        found.rows,
        found.method,
        se=se * math.sqrt(1 + ratio),
        # Where the few rows at hand happen to spread little, both standard errors are too small at once. Half of the
        # degrees of freedom keep the error rate also with long tails (benchmarks/bench_fleet_performance.py).
        dof=max(min(found.dof, baseline_rows - 1) / 2, 2),
        # Third cumulants add up; that of the score at training is not known, and may be of the worse sign.
        skew=-abs(skew) * (1 + ratio**2) / (1 + ratio) ** 1.5,
    )
    return fall.p_value(0.0)


@dataclass(frozen=True)
class _Badness:
    """A score as a number that grows with the error, on a scale on which its standard error hangs less on its value.

    :param slope: its derivative by the score, negative. :param bend: the second one.
    """

    value: float
    slope: float
    bend: float


def _badness(metric: Metric, score: float) -> _Badness | None:
    """Logarithm of a loss (of r2 the share that is not explained), or of the odds of a share; ``None``: it has none."""
    top = 0.0 if metric.lower_is_better else 1.0
    loss = top - score
    if loss <= 0:
        return None
    if metric.lower_is_better or metric.scorer_name in ("r2", "explained_variance", "d2_absolute_error_score"):
        return _Badness(math.log(loss), -1 / loss, -1 / loss**2)
    if score <= 0:
        return None
    spread = score * loss
    return _Badness(math.log(loss / score), -1 / spread, (1 - 2 * score) / spread**2)


def fleet_performance(
    store: Store,
    registry: Registry,
    capture: Mapping[str, Any],
    *,
    data: Data,
    labels: Labels,
    config: Performance,
    metrics: Sequence[str],
    files: Files,
    drifted: Mapping[str, Any],
    log: Log,
    evaluate: Evaluate | None = None,
) -> dict[str, Any]:
    """Score the captured predictions of each key by their outcomes, against the score of its version at training.

    Rows that a parent served are left out: its score at training is that of all keys, and it serves a few. Rows of one
    block may depend on each other; a key with fewer than 12 blocks counts row by row, and the sentence says so.

    :param evaluate: its ``block`` says which rows are of one block, as on the holdout.
    :param drifted: keys that the drift check of the same window alarmed about.
    :return: ``{"verdict", "sentence", "metric", "value", "baseline", "rows", "coverage", "keys", "worse_keys",
        "pending", "few", "without_metric", "table", "alarms", "window"}``; ``value`` and ``baseline`` are those of
        the middle key, ``table`` is the digest of a row for each key, ``alarms`` that of the keys that became worse.
    :raises ConfigError: ``data.id`` is not set, so that nothing can be joined.
    :raises EvaluationError: the metric was measured at the training of none of the models.
    """
    if data.id is None:
        raise ConfigError("monitor.labels needs data.id: the column that names a row", hint="set data.id")
    window = {"window": capture["window"]}
    served = Served(store, capture)
    versions = served_versions(registry, served)
    source = Data(source=labels.source, target=data.target, private=data.private)
    asked = [labels.join_on, data.target]
    try:
        batches = read_batches(source, files=files, window=None, columns=asked)
        known = pd.concat([batch.to_pandas().dropna(subset=asked) for batch in batches], ignore_index=True)
    except DataNotFound as e:
        return {"verdict": "pending_labels", "sentence": f"labels are pending: {e.message}", "alarms": None, **window}
    if not versions:
        sentence = "not enough data: no key was served by a model of its own"
        return {"verdict": "not_enough_data", "sentence": sentence, "alarms": None, **window}
    # Others were registered from elsewhere.
    trained = [version for version in versions if _holdout_rows(version) is not None]
    if not trained:
        raise EvaluationError(
            "of no model that served is known how many rows its score at training stands on",
            hint="train the fleet by its training DAG, or remove monitor.performance",
        )
    metric = Metric(watched_metric(trained[0], config, metrics))
    said = [c for c in served.columns if is_output(c)]
    by = data.split.column if data.split.by == "group" else data.timestamp
    blocked = evaluate is not None and by is not None and by in served.columns
    kept = [by] if blocked and by is not None else []
    predicted = served.own_rows([data.id, *said, *kept], named_by=data.id)
    left, right = same_keys(predicted[data.id], known[labels.join_on])
    predicted, _ = last_of_each(predicted, left)
    known, _ = last_of_each(known, right)
    matched = predicted.index.isin(known.index)
    coverage = float(matched.mean()) if len(matched) else 0.0
    counted = f"{int(matched.sum()):,} of {len(predicted):,} predictions have a label"
    if coverage < config.min_coverage:
        sentence = f"labels are pending: {counted}, at least {config.min_coverage:.0%} are needed"
        return {"verdict": "pending_labels", "sentence": sentence, "alarms": None, **window}
    shares = pd.Series(matched).groupby(predicted[KEY].array, observed=True).agg(["sum", "mean"])
    shares.index = shares.index.astype(object)
    predicted = predicted[matched]
    pending = set(shares.index[shares["mean"] < config.min_coverage])
    few = set(shares.index[shares["sum"] < MIN_ROWS]) - pending
    enough = [v for v in versions if v.key in shares.index and v.key not in pending | few]
    wanted = [v for v in enough if metric.name in v.metrics and _holdout_rows(v) is not None]
    if enough and not wanted:
        raise EvaluationError(
            f"{metric.name!r} was not measured when {enough[0].name} was trained, nor for any other key",
            hint=f"name it in evaluate.metrics, or watch one of {', '.join(enough[0].metrics)}",
        )
    truth = known.loc[predicted.index, data.target]
    codes = block_codes(predicted, data, evaluate) if blocked and evaluate else None
    judged = [*_judge(metric, wanted, predicted, truth, codes, config.max_drop)]
    rows: dict[str, Any] = {"rows": int(matched.sum()), "coverage": coverage, "pending": len(pending), "few": len(few)}
    rows |= {"without_metric": len(enough) - len(wanted)}
    return (
        rows
        | _result(store, metric, judged, config, counted, pending, few, len(enough) - len(wanted), served, drifted, log)
        | window
    )


def _judge(
    metric: Metric,
    versions: Sequence[Version],
    predicted: pd.DataFrame,
    truth: pd.Series,
    codes: np.ndarray | None,
    max_drop: float,
) -> Iterator[Judged]:
    """Judge keys, those of one training together: they have one schema."""
    by_training: dict[str, list[Version]] = defaultdict(list)
    for version in versions:
        by_training[version.record.get("of") or version.name].append(version)
    places = predicted.groupby(KEY, sort=False, observed=True).indices
    for group in by_training.values():
        schema = FeatureSchema.from_dict(group[0].record["schema"])
        rows = np.concatenate([places[str(version.key)] for version in group])
        y, n_classes = truth_of(truth.iloc[rows], schema)
        said = said_of(predicted.iloc[rows], schema)
        metric.check_task("regression" if n_classes is None else "classification", n_classes)
        at = 0
        for version in group:
            mine = slice(at, at := at + len(places[str(version.key)]))
            blocks = np.unique(codes[rows[mine]], return_inverse=True)[1] if codes is not None else None
            yield from _of_key(metric, version, y[mine], _part(said, mine), n_classes, blocks, max_drop)


def _holdout_rows(version: Version) -> int | None:
    """How many rows its score at training stands on; None where its record does not say."""
    rows = version.record.get("rows")
    count = rows.get("holdout") if isinstance(rows, dict) else None
    return count if isinstance(count, int) else None


def _part(said: Predictions, rows: slice) -> Predictions:
    labels, proba, decision = (None if a is None else a[rows] for a in (said.labels, said.proba, said.decision))
    return Predictions(labels, proba, decision)


def _of_key(
    metric: Metric,
    version: Version,
    y: np.ndarray,
    said: Predictions,
    n_classes: int | None,
    blocks: np.ndarray | None,
    max_drop: float,
) -> Iterator[Judged]:
    if metric.is_ranking and (y == y[0]).all():
        return
    try:
        score = metric.score(y, said, n_classes=n_classes)
    except EvaluationError:
        return  # of these rows it says nothing, as of a single value r2 does
    before = metric.printed(version.metrics[metric.name])  # as a score: printing turns it around and back
    fell = before - score
    p_value = 1.0
    single = blocks is not None and int(blocks.max()) + 1 < MIN_BLOCKS
    if fell >= max_drop - 1e-12:
        found = estimate(metric, y, said, n_classes=n_classes, seed=7, blocks=None if single else blocks)
        p_value = fall_p_value(metric, found, before, _holdout_rows(version) or 0)
    yield Judged(
        str(version.key), version.number, len(y), metric.printed(score), version.metrics[metric.name], fell, p_value,
        single,
    )  # fmt: skip


def _result(
    store: Store,
    metric: Metric,
    judged: Sequence[Judged],
    config: Performance,
    counted: str,
    pending: set[str],
    few: set[str],
    unmeasured: int,
    served: Served,
    drifted: Mapping[str, Any],
    log: Log,
) -> dict[str, Any]:
    limit = critical_p([one.p_value for one in judged], 1 - CONFIDENCE, "bh")
    # A fall that is too small to be an alarm was given p = 1.
    worse = sorted((one for one in judged if one.p_value <= min(limit, 0.5)), key=lambda one: (one.p_value, -one.fell))
    for one in worse[:_TOLD]:
        log("%s v%d: %s %.4g against %.4g at training, p %.2g", one.key, one.version, metric.name, one.value,
            one.baseline, one.p_value)  # fmt: skip
    parts = [_sentence(metric, judged, worse, drifted), counted]
    parts += [f"{len(pending):,} keys wait for labels"] if pending else []
    parts += [f"{len(few):,} keys have too few rows"] if few else []
    parts += [f"{unmeasured:,} keys were trained without {metric.name}"] if unmeasured else []
    if single := sum(one.single for one in judged):
        parts.append(f"rows count as independent in {single:,} keys, whose blocks are fewer than {MIN_BLOCKS}")
    if served.by_parent:
        rows, keys = sum(served.by_parent.values()), len(served.by_parent)
        parts.append(f"not checked, because a parent served: {rows:,} rows of {keys:,} keys")
    middle = {
        name: float(np.median([getattr(one, name) for one in judged])) if judged else None
        for name in ("value", "baseline")
    }
    return {
        "verdict": "drop" if worse else "ok" if judged else "not_enough_data",
        "sentence": "; ".join(parts),
        "metric": metric.name,
        **middle,
        "keys": len(judged),
        "worse_keys": len(worse),
        "table": _put(store, judged, {one.key for one in worse}),
        "alarms": put_alarms(store, {one.key: (one.version, ()) for one in sorted(worse, key=lambda one: one.key)}),
    }


def _sentence(metric: Metric, judged: Sequence[Judged], worse: Sequence[Judged], drifted: Mapping[str, Any]) -> str:
    if not judged:
        return "not enough data: no key has outcomes enough"
    if not worse:
        return f"{metric.name} has fallen in none of {len(judged):,} keys"
    named = [f"{one.key} ({metric.name} {one.value:.4g} against {one.baseline:.4g})" for one in worse[:_NAMED]]
    more = f" and {len(worse) - _NAMED:,} more" if len(worse) > _NAMED else ""
    both = sum(one.key in drifted for one in worse)
    cause = f", the inputs of {both:,} of them drifted" if both else ""
    return f"{metric.name} has fallen in {len(worse):,} of {len(judged):,} keys{cause}: {', '.join(named)}{more}"


def _put(store: Store, judged: Sequence[Judged], worse: set[str]) -> str:
    names = ("key", "version", "rows", "value", "baseline", "fell", "p_value")
    columns: dict[str, list[Any]] = {name: [getattr(one, name) for one in judged] for name in names}
    columns["alarm"] = [one.key in worse for one in judged]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd", write_page_checksum=True)
    return put_blob(store, sink.getvalue())
