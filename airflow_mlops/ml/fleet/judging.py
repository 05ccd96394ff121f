"""One key's candidate against its limits and its own champion, without what a report of a single model needs.

The gates are those of a single model (:func:`airflow_mlops.ml.gates.decide`), on arrays in place of a table: of
16,000 models a night, none has a holdout worth a file of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Gate
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.evaluation import Evaluation, MetricValue, Reference
from airflow_mlops.ml.gates import decide, next_reference
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.wear import Wear, stricter

_NO_FRAME = pd.DataFrame()
_ITSELF = 0
"""The version that is judged: it has no number yet."""


@dataclass(frozen=True)
class KeyEvaluation(Evaluation):
    """What models said about one key's holdout.

    :param truth: class codes or numbers, shape (rows,).
    :param said: by ``candidate``, ``champion`` and ``reference``.
    :param row_blocks: block of each row, from 0; ``None`` where rows are independent.
    """

    truth: np.ndarray = field(default_factory=lambda: np.empty(0))
    said: Mapping[str, Predictions] = field(default_factory=dict)
    row_blocks: np.ndarray | None = None

    @property
    def rows(self) -> int:
        """Rows of the holdout."""
        return len(self.truth)

    @property
    def y(self) -> np.ndarray:
        """Class codes or numbers, shape (rows,)."""
        return self.truth

    @property
    def block_codes(self) -> np.ndarray | None:
        """Block of each row, shape (rows,)."""
        return self.row_blocks

    def predictions(self, model: str) -> Predictions:
        """What ``candidate``, ``champion`` or ``reference`` said."""
        return self.said[model]


@dataclass(frozen=True)
class Judged:
    """What the gates say of one key, by itself; the verdict over all keys comes later.

    :param metrics: of the candidate, as printed; ``champion`` likewise, empty without one.
    :param p_value: the largest one of its comparisons with champion and reference (each must pass: Berger 1982);
        ``None`` where there is none.
    :param reference: the version that later losses are counted from, should this one become champion; ``None``: it.
    """

    verdict: str
    sentence: str
    metrics: dict[str, float]
    champion: dict[str, float]
    p_value: float | None
    reference: int | None = None


class Judge:
    """Judges keys, one after the other, by the same gates.

    :param metrics: names, as printed.
    :param classes: in the order of their codes; ``None`` for regression.
    :param wear: this run's place among the decisions on its holdout.
    :raises EvaluationError: a metric that nobody knows or that does not suit the task.
    """

    def __init__(
        self,
        gates: Sequence[Gate],
        metrics: Sequence[str],
        *,
        task: Any,
        classes: tuple[Any, ...] | None,
        blocks: str | None,
        wear: Wear | None,
    ) -> None:
        self.gates, self._wear, self._task, self._classes, self._blocks = gates, wear, task, classes, blocks
        self._metrics = [Metric(name) for name in metrics]
        self._n_classes = len(classes) if classes is not None else None
        of_gates = {g.metric: Metric(g.metric) for g in gates if g.metric}
        for metric in (*self._metrics, *of_gates.values()):
            metric.check_task(task, self._n_classes)
        self._compared = [
            (of_gates[g.metric], _limit(stricter(g, wear)), g.not_worse_by is not None)
            for g in gates
            if g.versus is not None and g.metric
        ]
        self.needs_labels = needs_labels(gates, metrics, task)

    def judge(
        self,
        y: np.ndarray,
        candidate: Predictions,
        champion: Predictions | None,
        *,
        blocks: np.ndarray | None = None,
        same_model: bool = False,
        reference: Reference | None = None,
        before: Predictions | None = None,
        counted_from: int | None = None,
    ) -> Judged:
        """Judge one key. What is only printed is left out where the holdout lacks a class that it needs.

        :param y: class codes or numbers of its holdout, shape (n,).
        :param blocks: shape (n,), any whole numbers.
        :param reference: the version that losses are counted from, where it is not the champion; ``before``: what it
            said, ``None`` where it has a problem.
        :param counted_from: number of that version, or of the champion where it is the one; ``None`` without champion.
        :raises EvaluationError: a metric cannot be computed on this holdout, see :meth:`undecided`.
        """
        all_said = {"candidate": candidate, "champion": champion, "reference": before}
        said = {name: what for name, what in all_said.items() if what is not None}
        # Once: the gates look here before they compute a score.
        scores = tuple(self._scored(y, candidate, champion))
        found = KeyEvaluation(
            self._task,
            self._classes,
            scores,
            _NO_FRAME,
            champion is not None,
            same_model,
            reference,
            blocks=self._blocks if blocks is not None else None,
            truth=y,
            said=said,
            row_blocks=None if blocks is None else np.unique(blocks, return_inverse=True)[1],
        )
        report = decide(self.gates, found, wear=self._wear)
        p_value = None
        if champion is not None and self._compared and not same_model:
            p_value = max(
                found.estimate(metric, against=name).p_value(limit)
                for metric, limit, tolerant in self._compared
                for name in (("champion", "reference") if tolerant and before is not None else ("champion",))
            )
        counted = next_reference(report, _ITSELF, counted_from)
        return Judged(
            report.verdict,
            report.sentence,
            {score.name: score.candidate for score in scores},
            {score.name: score.champion for score in scores if score.champion is not None},
            p_value,
            counted if counted != _ITSELF else None,
        )

    def undecided(self, y: np.ndarray, error: EvaluationError) -> Judged | None:
        """What is said of a key whose holdout lacks a class that a gate's metric needs; ``None``: it lacks none."""
        lacking = self._lacking(y)
        if not lacking:
            return None
        told = f"class {lacking[0]} has" if len(lacking) == 1 else f"{len(lacking)} classes, such as {lacking[0]}, have"
        return Judged("inconclusive", f"inconclusive: {error.message}; {told} no holdout rows", {}, {}, None)

    def without_champion(self, judged: Judged, why: str) -> Judged:
        """What is said of a key whose champion cannot be asked: a gate that compares has not decided."""
        if not self._compared or judged.verdict == "rejected":
            return judged
        return replace(judged, verdict="inconclusive", sentence=f"inconclusive: champion {why}")

    def _lacking(self, y: np.ndarray) -> list[Any]:
        return [c for i, c in enumerate(self._classes or ()) if not (y == i).any()]

    def _scored(self, y: np.ndarray, candidate: Predictions, champion: Predictions | None) -> Iterator[MetricValue]:
        for metric in self._metrics:
            try:
                mine = metric.printed(metric.score(y, candidate, n_classes=self._n_classes))
                theirs = metric.printed(metric.score(y, champion, n_classes=self._n_classes)) if champion else None
            except EvaluationError:
                if not self._lacking(y):
                    raise
            else:
                yield MetricValue(metric.name, metric.lower_is_better, mine, None, None, theirs)


def needs_labels(gates: Sequence[Gate], metrics: Sequence[str], task: str) -> bool:
    """Whether any metric is computed from predicted classes, or the models predict numbers."""
    names = dict.fromkeys([*metrics, *(g.metric for g in gates if g.metric)])
    return task == "regression" or any(Metric(name).needs_labels for name in names)


def predictions_of(columns: Mapping[str, np.ndarray], name: str) -> Predictions:
    """What :func:`airflow_mlops.ml.holdout.predict` returned for ``name``."""
    proba = [v for k, v in columns.items() if k.startswith(f"{name}_proba_")]
    decision = [v for k, v in columns.items() if k.startswith(f"{name}_decision_")]
    return Predictions(
        columns.get(f"{name}_label"),
        np.column_stack(proba) if proba else None,
        (decision[0] if len(decision) == 1 else np.column_stack(decision)) if decision else None,
    )


def check_fleet_gates(gates: Sequence[Gate]) -> None:
    """Refuse gates that no fleet can judge.

    :raises EvaluationError: a gate other than of a metric, alone or against the champion.
    """
    for gate in gates:
        if gate.metric is None or gate.columns:
            raise EvaluationError(
                "a fleet judges each key by metrics, alone or versus: champion",
                hint="take gates with slices, by, value, serving and behaviours out of evaluate.gates",
            )


def _limit(gate: Gate) -> float:
    return 0.0 - gate.not_worse_by if gate.not_worse_by is not None else float(gate.better_by or 0.0)
