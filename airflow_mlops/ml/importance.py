"""Permutation importance: how much worse the model scores when one column's values change places.

By scikit-learn's own function, on holdout rows, within bounds of rows, columns and time. References: Breiman
(2001), "Random Forests", *Machine Learning* 45, 5-32; Fisher, Rudin & Dominici (2019), "All Models are Wrong,
but Many are Useful", *Journal of Machine Learning Research* 20(177), 1-81.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.inspection import permutation_importance

from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.holdout import predict, truth
from airflow_mlops.ml.metrics import Metric, Task

MOST_ROWS = 2_000
MOST_COLUMNS = 50
REPEATS = 5
SECONDS = 30.0


class _OutOfTimeError(Exception):
    """Ends the permutations between two predictions."""


def importance(
    model: Any,
    frame: pd.DataFrame,
    y: pd.Series,
    *,
    task: Task,
    metric: str,
    classes: Sequence[Any] | None = None,
    positive: Any = None,
    seed: int = 7,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Permute the columns of ``frame`` one by one and give the fall of the metric's score, in plain JSON.

    Looks at up to 2,000 rows, drawn by ``seed``, and the first 50 columns, five times each; after ``seconds`` the
    columns that are not done are left out. What was left out is counted.

    :param model: fitted estimator on the columns of ``frame``, shape (n, features).
    :param y: shape (n,), the true labels or numbers.
    :param metric: a scorer's name; a fall of its score is positive, whether it prints lower or higher as better.
    :return: ``{"metric", "lower_is_better", "rows", "of_rows", "columns", "repeats", "features": [{"name", "mean",
        "std"}], "left_out", "out_of_time", "why"}``, the most important first; ``why`` says why there are none.
    """
    began = time.monotonic()
    rows = np.arange(len(frame))
    if len(frame) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(len(frame), MOST_ROWS, replace=False))
    sample = frame.iloc[rows].reset_index(drop=True)
    names = [str(c) for c in frame.columns]
    found: list[dict[str, Any]] = []
    scorer = Metric(metric)
    result: dict[str, Any] = {
        "metric": metric,
        "lower_is_better": scorer.lower_is_better,
        "rows": len(sample),
        "of_rows": len(frame),
        "columns": len(names),
        "repeats": REPEATS,
        "why": None,
    }
    out_of_time = False
    try:
        ordered, codes = truth(y.iloc[rows], task, classes, positive)
        labels = task == "regression" or scorer.needs_labels

        def score(estimator: Any, permuted: pd.DataFrame, truths: np.ndarray) -> float:
            if time.monotonic() - began >= seconds:
                raise _OutOfTimeError
            full = sample.assign(**{str(c): permuted[c] for c in permuted.columns})
            said = predict("candidate", estimator, full, ordered=ordered, labels=labels)
            evaluation = Evaluation(task, ordered, (), pd.DataFrame({"y": truths, **said}), has_champion=False)
            return scorer.score(truths, evaluation.predictions("candidate"), n_classes=evaluation.n_classes)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said once already, when the holdout was scored
            for name in names[:MOST_COLUMNS]:
                # One column at a time, so that time can be called; the same permutations for each.
                one = permutation_importance(
                    model, sample[[name]], codes, scoring=score, n_repeats=REPEATS, random_state=seed
                )
                mean, std = float(one.importances_mean[0]), float(one.importances_std[0])
                found.append({"name": name, "mean": mean, "std": std})
    except _OutOfTimeError:
        out_of_time = True
    except EvaluationError as e:
        found, result["why"] = [], e.message
    found.sort(key=lambda f: -f["mean"])
    return result | {"features": found, "left_out": len(names) - len(found), "out_of_time": out_of_time}
