"""Score candidate, champion and reference once on the same holdout; everything later works on what is kept here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mlops.exceptions import (
    CodeNotAllowed,
    CorruptObject,
    DataError,
    EvaluationError,
    ObjectNotFound,
    PredictionError,
)
from airflow_mlops.ml.blocks import MIN_BLOCKS
from airflow_mlops.ml.holdout import predict, truth
from airflow_mlops.ml.metrics import Metric, Predictions, Task, default_metrics
from airflow_mlops.ml.paired import Estimate, estimate
from airflow_mlops.ml.value import RowValues, ValueMetric

_META = b"airflow_mlops.evaluation"
_SLICE = "slice:"
INTERVAL = 0.95
"""Two-sided confidence of the printed intervals of single metrics."""

ModelAndFrame = tuple[Any, pd.DataFrame]
_CANNOT_BE_SCORED = (CodeNotAllowed, DataError, EvaluationError, ObjectNotFound, PredictionError)


@dataclass(frozen=True)
class Reference:
    """The version that ``not_worse_by`` counts losses from, where it is another one than the champion.

    :param version: its number.
    :param since: when it became champion, ISO 8601.
    :param problem: why it cannot be scored on this holdout; ``None`` where it was.
    """

    version: int
    since: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class MetricValue:
    """One metric as printed: value and interval (``None`` where it cannot be told) of both models."""

    name: str
    lower_is_better: bool
    candidate: float
    candidate_low: float | None
    candidate_high: float | None
    champion: float | None = None
    champion_low: float | None = None
    champion_high: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """What two models said about one holdout, and their metrics.

    :param classes: in the order of the codes (two classes: the positive one last); ``None`` for regression.
    :param metrics: as printed, in the order asked for.
    :param frame: one row per holdout row: ``row`` (its label in the holdout), ``y`` (class code or number), for
        ``candidate``, ``champion`` and ``reference`` each ``<model>_label`` and ``<model>_proba_<code>`` or
        ``<model>_decision_<i>`` as far as there are, ``<model>_value:<name>`` for each value, ``slice:<column>`` as
        text, and ``block``, whole numbers from 0, where rows of one block may depend on each other.
    :param same_model: candidate and champion are the same bytes.
    :param reference: where ``not_worse_by`` has another one than the champion.
    :param blocks: what a block is called, in the plural; ``None`` where rows are independent.
    :param known: values of slice columns that a model has seen in training.
    :param learned: rows of this holdout that ``champion`` or ``reference`` was trained on; left out where none.
    """

    task: Task
    classes: tuple[Any, ...] | None
    metrics: tuple[MetricValue, ...]
    frame: pd.DataFrame
    has_champion: bool
    same_model: bool = False
    reference: Reference | None = None
    blocks: str | None = None
    known: Mapping[str, Sequence[str]] = field(default_factory=dict)
    learned: Mapping[str, int] = field(default_factory=dict)
    _estimates: dict[tuple[str, str], Estimate] = field(default_factory=dict, repr=False, compare=False)

    @property
    def rows(self) -> int:
        """Rows of the holdout."""
        return len(self.frame)

    @property
    def n_classes(self) -> int | None:
        """Number of classes; ``None`` for regression."""
        return len(self.classes) if self.classes is not None else None

    @property
    def y(self) -> np.ndarray:
        """Class codes or numbers, shape (rows,)."""
        return self.frame["y"].to_numpy()

    @property
    def slices(self) -> dict[str, pd.Series]:
        """Slice columns by name, as text."""
        return {c.removeprefix(_SLICE): self.frame[c] for c in self.frame.columns if c.startswith(_SLICE)}

    @property
    def counts(self) -> dict[Any, int]:
        """Rows of each class; empty for regression."""
        if self.classes is None:
            return {}
        return dict(zip(self.classes, np.bincount(self.y, minlength=len(self.classes)).tolist(), strict=True))

    @property
    def block_codes(self) -> np.ndarray | None:
        """Block of each row, shape (rows,); ``None`` where rows are independent."""
        return self.frame["block"].to_numpy() if "block" in self.frame else None

    @property
    def block_count(self) -> tuple[int, float] | None:
        """Number of blocks, and of how many blocks of equal size they are worth; ``None`` where rows are independent.

        Carter, Schnepel & Steigerwald (2017), *Review of Economics and Statistics* 99, 698-709.
        """
        return self.blocks_among(np.arange(self.rows))

    def blocks_among(self, rows: np.ndarray) -> tuple[int, float] | None:
        """As :attr:`block_count`, of the given rows only."""
        codes = self.block_codes
        if codes is None:
            return None
        squares = np.bincount(codes[rows]).astype(float) ** 2
        worth = float(squares.sum() ** 2 / (squares**2).sum()) if len(rows) else 0.0
        return int((squares > 0).sum()), worth

    @property
    def same_predictions(self) -> bool:
        """Candidate and champion say exactly the same about every row."""
        return self.has_champion and self.predictions("candidate").same_as(self.predictions("champion"))

    def predictions(self, model: str) -> Predictions:
        """What ``candidate``, ``champion`` or ``reference`` said."""
        label = f"{model}_label"
        columns = {k: [c for c in self.frame.columns if c.startswith(f"{model}_{k}_")] for k in ("proba", "decision")}
        decision = self.frame[columns["decision"]].to_numpy() if columns["decision"] else None
        value = f"{model}_value:"
        return Predictions(
            labels=self.frame[label].to_numpy() if label in self.frame else None,
            proba=self.frame[columns["proba"]].to_numpy() if columns["proba"] else None,
            decision=decision[:, 0] if decision is not None and decision.shape[1] == 1 else decision,
            values={c.removeprefix(value): self.frame[c].to_numpy() for c in self.frame.columns if c.startswith(value)},
        )

    def estimate(self, metric: Metric, of: str = "candidate", against: str | None = None) -> Estimate:
        """A model's score, or how far it is above that of ``against``, with its uncertainty; kept once computed."""
        key = (metric.name, f"{of} - {against}")
        if key not in self._estimates:
            mine, other = self.predictions(of), self.predictions(against) if against else None
            found = estimate(metric, self.y, mine, other, n_classes=self.n_classes, blocks=self.block_codes)
            if isinstance(metric, ValueMetric):
                found = metric.settled(found, self.y, mine, other)
            self._estimates[key] = found
        return self._estimates[key]

    def value(self, metric: Metric, of: str = "candidate") -> float:
        """A model's score, without the cost of its uncertainty."""
        for kept in self.metrics:
            if kept.name == metric.name:
                printed = {"candidate": kept.candidate, "champion": kept.champion}.get(of)
                if printed is not None:
                    return metric.printed(printed)
        other = "champion" if of == "candidate" else of
        compared = self._estimates.get((metric.name, f"candidate - {other}"))
        if compared is not None and compared.pair is not None:
            return compared.pair[0 if of == "candidate" else 1]
        return metric.score(self.y, self.predictions(of), n_classes=self.n_classes)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows, as plain JSON."""
        return {
            "task": self.task,
            "classes": list(self.classes) if self.classes is not None else None,
            "metrics": [asdict(m) for m in self.metrics],
            "has_champion": self.has_champion,
            "same_model": self.same_model,
            "rows": self.rows,
            "reference": asdict(self.reference) if self.reference is not None else None,
            "blocks": self.blocks,
            "known": {column: list(values) for column, values in self.known.items()},
            "learned": dict(self.learned),
        }

    def to_parquet(self, path: str | Path) -> None:
        """Write the rows and, in the file's metadata, the rest; page checksums on."""
        table = pa.Table.from_pandas(self.frame, preserve_index=False)
        meta = json.dumps(self.to_dict(), allow_nan=False).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _META: meta})
        pq.write_table(table, str(path), write_page_checksum=True, compression="zstd")

    @classmethod
    def from_parquet(cls, path: str | Path) -> Evaluation:
        """Read back what :meth:`to_parquet` wrote.

        :raises CorruptObject: when the file is damaged or something else.
        """
        try:
            table = pq.read_table(str(path), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as e:
            raise CorruptObject(f"the evaluation {path} cannot be read: {e}", hint="run the evaluation again") from e
        if _META not in (table.schema.metadata or {}):
            raise CorruptObject(f"{path} is a Parquet file, but not an evaluation", hint="run the evaluation again")
        meta = json.loads(table.schema.metadata[_META])
        return cls(
            task=meta["task"],
            classes=tuple(meta["classes"]) if meta["classes"] is not None else None,
            metrics=tuple(MetricValue(**m) for m in meta["metrics"]),
            frame=table.to_pandas(),
            has_champion=meta["has_champion"],
            same_model=meta["same_model"],
            # Not always written: these came later.
            reference=Reference(**meta["reference"]) if meta.get("reference") else None,
            blocks=meta.get("blocks"),
            known=meta.get("known", {}),
            learned=meta.get("learned", {}),
        )


def evaluate(
    *,
    candidate: ModelAndFrame,
    champion: ModelAndFrame | None,
    y: pd.Series,
    task: Task,
    metrics: Sequence[str] = (),
    gate_metrics: Sequence[str] = (),
    worth: Mapping[str, RowValues] | None = None,
    classes: Sequence[Any] | None = None,
    positive: Any = None,
    slices: Mapping[str, pd.Series] | None = None,
    same_model: bool = False,
    reference: tuple[Reference, Callable[[], ModelAndFrame]] | None = None,
    blocks: tuple[str, np.ndarray] | None = None,
    known: Mapping[str, Sequence[str]] | None = None,
    learned: Mapping[str, int] | None = None,
    log: Callable[[str], object] | None = None,
) -> Evaluation:
    """Predict the holdout with the models and compute the metrics.

    :param candidate: fitted model and the holdout in the model's own schema, shape (n, features); the champion's
        frame holds the same rows in the same order, maybe with other columns.
    :param y: shape (n,), the true labels or numbers.
    :param metrics: scorer names or aliases; default :func:`default_metrics`.
    :param gate_metrics: further metrics that gates will ask for, so that what they need is stored.
    :param worth: by name, what each row is worth; kept for gates that ask for it.
    :param classes: all classes, any order; required for classification.
    :param positive: the positive one of two classes; default: the last of ``classes``.
    :param slices: columns by which gates look at parts of the holdout, each of shape (n,).
    :param same_model: whether candidate and champion are the same bytes.
    :param reference: the version that losses are counted from, and how to get it with its frame. It may be old: that
        it does not fit these rows is noted and not raised.
    :param blocks: what blocks of rows that may depend on each other are called, and the block of each row, shape (n,).
    :param known: values of slice columns that a model has seen in training.
    :param learned: rows of the holdout that ``champion`` or ``reference`` was trained on.
    :raises EvaluationError: no rows, missing or unknown labels, one class only, a metric that is unknown, does not fit
        the task or is not finite, or predictions that are not finite or no probabilities.
    """
    n = len(y)
    if n == 0:
        raise EvaluationError(
            "the holdout has no rows", hint="raise data.split.test or data.window, or look at the source of this window"
        )
    ordered, codes = truth(y, task, classes, positive)
    n_classes = len(ordered) if ordered is not None else None
    wanted = [Metric(name) for name in dict.fromkeys(metrics or default_metrics(task, n_classes))]
    needed = wanted + [Metric(name) for name in dict.fromkeys(gate_metrics)]
    for metric in needed:
        metric.check_task(task, n_classes)
    labels = task == "regression" or bool(worth) or any(m.needs_labels for m in needed)

    columns: dict[str, Any] = {"row": np.asarray(y.index), "y": codes}
    for name, pair in (("candidate", candidate), ("champion", champion)):
        if pair is None:
            continue
        if len(pair[1]) != n:
            raise EvaluationError(f"the {name} was given {len(pair[1])} rows and the holdout has {n} labels")
        columns |= predict(name, *pair, ordered=ordered, labels=labels)
    about = None
    if reference is not None:
        about, fetch = reference
        try:
            columns |= predict("reference", *fetch(), ordered=ordered, labels=labels)
        except _CANNOT_BE_SCORED as e:
            if e.retryable:
                raise
            about = replace(about, problem=e.message)
    if blocks is not None:
        columns["block"] = blocks[1]
    for column, values in (slices or {}).items():
        if len(values) != n:
            raise EvaluationError(f"slice column {column!r} has {len(values)} rows and the holdout {n}")
        columns[_SLICE + column] = _names(values)

    found = Evaluation(
        task,
        ordered,
        (),
        pd.DataFrame(columns),
        champion is not None,
        same_model,
        about,
        blocks[0] if blocks is not None else None,
        known or {},
        learned or {},
    )
    scored = [m for m in ("candidate", "champion", "reference") if any(c.startswith(f"{m}_") for c in columns)]
    for name, of_rows in (worth or {}).items():
        for model in scored:
            found.frame[f"{model}_value:{name}"] = of_rows(codes, found.predictions(model), ordered)
    result = replace(found, metrics=tuple(metric_value(found, metric) for metric in wanted))
    if log is not None:
        for m in result.metrics:
            against = f", champion {m.champion:.6g}" if m.champion is not None else ""
            log(f"{m.name} on {n:,} holdout rows: candidate {m.candidate:.6g}{against}")
    return result


def _names(values: pd.Series) -> np.ndarray:
    """What a slice column's values are called, shape (n,)."""
    text = pd.Series(np.asarray(values, dtype=object)).astype(object)
    present = text.notna()
    if pd.api.types.is_float_dtype(values.dtype):
        numbers = text[present].to_numpy(dtype=float)
        # Missing values turn a column of integers into floats; the file and its `slice_values` still say 3, not 3.0.
        if (np.isfinite(numbers) & (numbers == np.trunc(numbers)) & (np.abs(numbers) < 2**53)).all():
            text[present] = [int(number) for number in numbers]
    return text.where(present, "(missing)").astype(str).to_numpy(dtype=object)


def metric_value(evaluation: Evaluation, metric: Metric) -> MetricValue:
    """Return a metric of candidate and champion as it is printed, with intervals where they can be told."""
    numbers: list[float | None] = []
    for of in ("candidate", "champion"):
        if of == "champion" and not evaluation.has_champion:
            numbers += [None, None, None]
            continue
        found = evaluation.estimate(metric, of)
        few = found.blocks is not None and found.blocks < MIN_BLOCKS
        bounds = None if few else found.bounds((1 + INTERVAL) / 2)
        # Turning the sign turns the interval's ends around too.
        ends = sorted(metric.limited(metric.printed(b)) for b in bounds) if bounds is not None else [None, None]
        numbers += [metric.printed(found.value), *ends]
    value, *rest = numbers
    if value is None:
        raise EvaluationError(f"metric {metric.name!r} has no value")
    return MetricValue(metric.name, metric.lower_is_better, value, *rest)
