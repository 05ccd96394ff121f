from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression

from airflow_mlops.ml import importance as module
from airflow_mlops.ml.importance import MOST_COLUMNS, MOST_ROWS, REPEATS, importance


def rows(n: int = 400, columns: int = 3) -> tuple[pd.DataFrame, pd.Series]:
    random = np.random.default_rng(1)
    frame = pd.DataFrame(random.normal(size=(n, columns)), columns=[f"x{i}" for i in range(columns)])
    return frame, (frame.x0 * 2 + frame[f"x{columns - 1}"] * 0.5 + random.normal(size=n) > 0).astype(int)


def found(metric: str = "roc_auc", n: int = 400, columns: int = 3, **kwargs: Any) -> dict[str, Any]:
    frame, y = rows(n, columns)
    model = LogisticRegression().fit(frame, y)
    return importance(model, frame, y, task="classification", metric=metric, classes=[0, 1], **kwargs)


def test_it_is_what_scikit_learn_finds() -> None:
    frame, y = rows()
    model = LogisticRegression().fit(frame, y)
    mine = importance(model, frame, y, task="classification", metric="roc_auc", classes=[0, 1], seed=3)
    for feature in mine["features"]:
        one = frame[[feature["name"]]]
        theirs = permutation_importance(
            model,
            one,
            y,
            scoring=lambda m, x, t: _auc(m, frame.assign(**{str(x.columns[0]): x.iloc[:, 0]}), t),
            n_repeats=REPEATS,
            random_state=3,
        )
        assert feature["mean"] == pytest.approx(theirs.importances_mean[0])
        assert feature["std"] == pytest.approx(theirs.importances_std[0])


def _auc(model: Any, frame: pd.DataFrame, y: Any) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, model.predict_proba(frame)[:, 1]))


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "accuracy"])
def test_a_column_the_model_needs_comes_first_and_falls_are_positive(metric: str) -> None:
    result = found(metric)
    assert result["features"][0]["name"] == "x0"
    assert result["features"][0]["mean"] > 3 * result["features"][0]["std"] > 0
    assert result["features"][0]["mean"] > 10 * abs(next(f for f in result["features"] if f["name"] == "x1")["mean"])
    assert result["lower_is_better"] == (metric == "log_loss")
    assert (result["rows"], result["of_rows"], result["left_out"], result["why"]) == (400, 400, 0, None)


def test_regression() -> None:
    frame, _ = rows()
    y = frame.x2 * 3
    result = importance(LinearRegression().fit(frame, y), frame, y, task="regression", metric="rmse")
    assert result["features"][0]["name"] == "x2"
    assert result["features"][1]["mean"] == pytest.approx(0, abs=1e-9)


def test_many_rows_are_drawn_by_the_seed() -> None:
    first, again, other = (found(n=MOST_ROWS + 500, seed=seed) for seed in (1, 1, 2))
    assert first["rows"] == MOST_ROWS
    assert first["of_rows"] == MOST_ROWS + 500
    assert first == again != other


def test_of_many_columns_the_first_are_looked_at() -> None:
    result = found(columns=MOST_COLUMNS + 7)
    assert {f["name"] for f in result["features"]} == {f"x{i}" for i in range(MOST_COLUMNS)}
    assert (result["columns"], result["left_out"], result["out_of_time"]) == (MOST_COLUMNS + 7, 7, False)


def test_what_is_done_when_the_time_is_up_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # A score costs one second: baseline and five permutations of the first column, and not all of the second.
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    result = found(seconds=10)
    assert [f["name"] for f in result["features"]] == ["x0"]
    assert (result["left_out"], result["out_of_time"]) == (2, True)


def test_no_time_at_all() -> None:
    result = found(seconds=0)
    assert result["features"] == []
    assert result["out_of_time"]


def test_rows_that_no_metric_can_judge_say_why() -> None:
    frame, y = rows()
    model = LogisticRegression().fit(frame, y)
    result = importance(model, frame, y * 0, task="classification", metric="roc_auc", classes=[0, 1])
    assert result["features"] == []
    assert "have the class 0" in result["why"]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_seed_will_do_and_the_frame_is_left_alone(seed: int) -> None:
    frame, y = rows(60)
    before = frame.copy()
    result = importance(
        LogisticRegression().fit(frame, y), frame, y, task="classification", metric="accuracy", classes=[0, 1],
        positive=1, seed=seed,
    )  # fmt: skip
    pd.testing.assert_frame_equal(frame, before)
    assert len(result["features"]) == 3
