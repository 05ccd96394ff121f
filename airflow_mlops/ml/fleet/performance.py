"""How good were the predictions of a fleet, key by key, now that outcomes have arrived?

A key alarms where its metric fell by ``max_drop`` or more against its score at training, and the fall is significant
among all keys (:mod:`~airflow_mlops.ml.fleet.falls`): by Benjamini & Hochberg's procedure (1995, *JRSS B* 57, 289-300)
at most 5 % of the alarms are expected to be false, and where no model has become worse the probability of any alarm is
at most 5 %. Outcomes are joined to predictions on disk: about a million rows are in memory at a time, or those of the
largest key.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_mlops.config.models import Data, Evaluate, Labels, Performance
from airflow_mlops.exceptions import ConfigError, DataNotFound, EvaluationError
from airflow_mlops.ml.blocks import MIN_BLOCKS, block_codes
from airflow_mlops.ml.data import read_batches
from airflow_mlops.ml.drift import critical_p
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.fleet.alarms import put_alarms
from airflow_mlops.ml.fleet.falls import Judged, by_training, holdout_rows, judge
from airflow_mlops.ml.fleet.partition import Log, divide
from airflow_mlops.ml.fleet.served import Served
from airflow_mlops.ml.fleet.served_drift import served_versions
from airflow_mlops.ml.metrics import Metric
from airflow_mlops.ml.outcome_join import OUTCOME, ROW, Joined, Outcomes
from airflow_mlops.ml.outcomes import watched_metric
from airflow_mlops.ml.outputs import KEY, is_output
from airflow_mlops.ml.performance import CONFIDENCE, MIN_ROWS
from airflow_mlops.ml.spool import Spool
from airflow_mlops.registry.registry import Registry, Version
from airflow_mlops.store import put_blob
from airflow_mlops.store.base import Store

_NAMED, _TOLD = 5, 10
_GROUP_ROWS = 2**19
"""Rows of keys that are judged together, but for a key with more."""


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
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-") as folder:
        served = Served(store, capture)
        versions = served_versions(registry, served)
        source = Data(source=labels.source, target=data.target, private=data.private)
        try:
            batches = read_batches(source, files=files, window=None, columns=[labels.join_on, data.target])
            outcomes = Outcomes(batches, labels.join_on, data.target, Path(folder))
        except DataNotFound as e:
            sentence = f"labels are pending: {e.message}"
            return {"verdict": "pending_labels", "sentence": sentence, "alarms": None, **window}
        if not versions:
            sentence = "not enough data: no key was served by a model of its own"
            return {"verdict": "not_enough_data", "sentence": sentence, "alarms": None, **window}
        # Others were registered from elsewhere.
        trained = [version for version in versions if holdout_rows(version) is not None]
        if not trained:
            raise EvaluationError(
                "of no model that served is known how many rows its score at training stands on",
                hint="train the fleet by its training DAG, or remove monitor.performance",
            )
        metric = Metric(watched_metric(trained[0], config, metrics))
        by = data.split.column if data.split.by == "group" else data.timestamp
        blocked = evaluate is not None and by is not None and by in served.columns
        kept = [by] if blocked and by is not None else []
        rows = _Rows(served, outcomes, [data.id, *(c for c in served.columns if is_output(c)), *kept])
        predicted, matched = (int(counts.sum()) for counts in (rows.predicted, rows.matched))
        coverage = matched / predicted if predicted else 0.0
        counted = f"{matched:,} of {predicted:,} predictions have a label"
        if coverage < config.min_coverage:
            sentence = f"labels are pending: {counted}, at least {config.min_coverage:.0%} are needed"
            return {"verdict": "pending_labels", "sentence": sentence, "alarms": None, **window}
        pending = rows.those(
            (rows.predicted > 0) & (rows.matched / np.maximum(rows.predicted, 1) < config.min_coverage)
        )
        few = rows.those((rows.predicted > 0) & (rows.matched < MIN_ROWS)) - pending
        none = rows.those(rows.predicted == 0)  # all were predicted again, with another key
        enough = [v for v in versions if v.key not in pending | few | none]
        wanted = [v for v in enough if metric.name in v.metrics and holdout_rows(v) is not None]
        if enough and not wanted:
            raise EvaluationError(
                f"{metric.name!r} was not measured when {enough[0].name} was trained, nor for any other key",
                hint=f"name it in evaluate.metrics, or watch one of {', '.join(enough[0].metrics)}",
            )
        blocks = (lambda some: block_codes(some, data, evaluate)) if blocked and evaluate is not None else None
        judged = _judged(rows, metric, wanted, config.max_drop, blocks)
        unmeasured = len(enough) - len(wanted)
        told: dict[str, Any] = {"rows": matched, "coverage": coverage, "pending": len(pending), "few": len(few)}
        told |= {"without_metric": unmeasured}
        return told | _result(store, metric, judged, counted, pending, few, unmeasured, served, drifted, log) | window


class _Rows:
    """The rows that have an outcome, on disk, some keys' together.

    :ivar keys: those that their own models served, in order.
    :ivar predicted: of each key, predictions with an id, of equal ones the last; ``matched``: those with an outcome.
    """

    def __init__(self, served: Served, outcomes: Outcomes, columns: Sequence[str]) -> None:
        counts = {key: rows for key, (_, rows) in served.own.items()}
        self.keys = sorted(counts)
        self._groups = divide(counts, -(-sum(counts.values()) // _GROUP_ROWS))
        numbers = {key: number for number, key in enumerate(self.keys)}
        group = np.repeat(np.arange(len(self._groups)), [*map(len, self._groups)])
        self.predicted, self.matched = (np.zeros(len(counts), dtype=np.int64) for _ in range(2))
        folder = outcomes.folder / "by-key"
        folder.mkdir()
        self._spool = Spool(folder, len(self._groups))
        joined = Joined(outcomes, served.own_batches(columns, numbers), columns[0], rows=sum(counts.values()))
        with self._spool:
            for part in joined:
                self.predicted += np.bincount(part[KEY].to_numpy(), minlength=len(counts))
                with_outcome = part.filter(pc.is_valid(part[OUTCOME])).combine_chunks()
                code = with_outcome[KEY].to_numpy()
                self.matched += np.bincount(code, minlength=len(counts))
                for batch in with_outcome.to_batches():
                    self._spool.add(batch, group[code], code)

    def those(self, mask: np.ndarray) -> set[str]:
        """The keys where ``mask``, shape (keys,), is True."""
        return {self.keys[number] for number in np.flatnonzero(mask)}

    def groups(self) -> Iterator[tuple[pd.DataFrame, dict[str, np.ndarray]]]:
        """Yield the rows of some keys in the order in which they were predicted, and by key where they are."""
        first = 0
        for number, keys in enumerate(self._groups):
            if number in self._spool:
                table = self._spool.table(number)[0]
                frame = table.take(pc.sort_indices(table, [(KEY, "ascending"), (ROW, "ascending")])).to_pandas()
                starts = np.searchsorted(frame[KEY].to_numpy(), first + np.arange(len(keys) + 1))
                yield frame, {key: np.arange(*starts[i : i + 2]) for i, key in enumerate(keys)}
            first += len(keys)


def _judged(
    rows: _Rows,
    metric: Metric,
    versions: Sequence[Version],
    max_drop: float,
    blocks: Callable[[pd.DataFrame], np.ndarray | None] | None,
) -> list[Judged]:
    known = {str(version.key): version for version in versions}
    found: list[Judged] = []
    for frame, places in rows.groups():
        mine = [known[key] for key in places if key in known]
        codes = blocks(frame) if blocks is not None and mine else None
        found += judge(metric, mine, frame, frame[OUTCOME], places, codes, max_drop)
    order = {str(version.key): n for n, version in enumerate(chain.from_iterable(by_training(versions)))}
    return sorted(found, key=lambda one: order[one.key])


def _result(
    store: Store,
    metric: Metric,
    judged: Sequence[Judged],
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
    parts += [f"{len(pending):,} key{' waits' if len(pending) == 1 else 's wait'} for labels"] if pending else []
    parts += [f"{len(few):,} key{' has' if len(few) == 1 else 's have'} too few rows"] if few else []
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
