from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import f1_score, log_loss, roc_auc_score, root_mean_squared_error
from sklearn.svm import LinearSVC

from airflow_mlops.exceptions import CorruptObject, EvaluationError
from airflow_mlops.ml.evaluation import Evaluation, evaluate
from airflow_mlops.ml.metrics import Metric


def data(n=400, seed=0, k=2):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 3)), columns=["a", "b", "c"])
    values = frame.a + 0.5 * frame.b + rng.normal(size=n)
    labels = pd.cut(values, k, labels=["ok", "late", "lost"][:k]).astype(object)
    return frame, pd.Series(labels, index=frame.index), values


def scored(**changes):
    frame, y, _ = data()
    small = frame[["b", "a"]]
    arguments = {
        "candidate": (LogisticRegression().fit(frame, y), frame),
        "champion": (LogisticRegression().fit(small, y), small),
        "y": y,
        "task": "classification",
        "classes": ["late", "ok"],
        "positive": "late",
    }
    return evaluate(**{**arguments, **changes})


def test_binary_values_equal_scikit_learn_and_read_back(tmp_path):
    frame, y, _ = data()
    lines = []
    found = scored(
        metrics=["roc_auc", "log_loss", "f1"],
        slices={"group": pd.Series([None, "x", 2.5, True] * 100)},
        log=lambda text, *args: lines.append(text),
    )
    model = LogisticRegression().fit(frame, y)
    p = model.predict_proba(frame)[:, list(model.classes_).index("late")]
    auc, loss, f1 = found.metrics
    assert auc.candidate == pytest.approx(roc_auc_score(y == "late", p), abs=1e-12)
    assert loss.candidate == pytest.approx(log_loss(y == "late", p), abs=1e-12)
    assert f1.candidate == pytest.approx(f1_score(y == "late", model.predict(frame) == "late"))
    for m in found.metrics:
        assert m.candidate_low < m.candidate < m.candidate_high
        assert m.champion_low < m.champion < m.champion_high
    assert found.classes == ("ok", "late")
    assert found.rows == 400
    assert found.counts == {"ok": int((y == "ok").sum()), "late": int((y == "late").sum())}
    assert sorted(set(found.slices["group"])) == ["(missing)", "2.5", "True", "x"]
    assert "roc_auc on 400" in lines[0]

    found.to_parquet(tmp_path / "e.parquet")
    back = Evaluation.from_parquet(tmp_path / "e.parquet")
    assert back.to_dict() == found.to_dict()
    assert json.dumps(back.to_dict(), allow_nan=False)
    for of in ("candidate", "champion"):
        assert back.predictions(of).same_as(found.predictions(of))
    metric = Metric("roc_auc")
    assert back.estimate(metric, against="champion") == found.estimate(metric, against="champion")
    assert back.value(Metric("log_loss"), "champion") == found.value(Metric("log_loss"), "champion") < 0


def test_default_positive_class_is_the_last_and_labels_are_not_asked_for_in_vain():
    found = scored(positive=None, champion=None)
    assert found.classes == ("late", "ok")
    assert [m.name for m in found.metrics] == ["roc_auc", "log_loss"]
    assert found.metrics[0].champion is None
    assert found.predictions("candidate").labels is None
    assert scored(gate_metrics=["accuracy"]).predictions("champion").labels is not None


@pytest.mark.parametrize("kind", ["bool", "int", "float", "str"])
def test_types_of_labels(kind):
    frame, y, _ = data()
    y = (y == "late").astype({"bool": bool, "int": int, "float": float, "str": str}[kind])
    classes = sorted(y.unique().tolist())
    found = scored(
        candidate=(LogisticRegression().fit(frame, y), frame), champion=None, y=y, classes=classes, positive=classes[1]
    )
    assert found.metrics[0].candidate > 0.7


def test_multiclass_with_a_class_the_champion_never_saw():
    frame, y, _ = data(k=3)
    seen = y != "lost"
    found = scored(
        candidate=(LogisticRegression().fit(frame, y), frame),
        champion=(LogisticRegression().fit(frame[seen], y[seen]), frame),
        y=y,
        classes=["lost", "late", "ok"],
        positive=None,
        metrics=["log_loss", "roc_auc_ovr", "accuracy", "brier"],
    )
    assert (found.predictions("champion").proba[:, 0] == 0).all()
    assert found.metrics[0].candidate < found.metrics[0].champion


def test_decision_function_ranks_by_the_positive_class():
    frame, y, _ = data()
    model = LinearSVC().fit(frame, y)  # its own second class is "ok"
    found = scored(candidate=(model, frame), champion=None, metrics=["roc_auc", "average_precision", "accuracy"])
    assert found.metrics[0].candidate == pytest.approx(roc_auc_score(y == "ok", model.decision_function(frame)))
    assert found.metrics[0].candidate > 0.7
    with pytest.raises(EvaluationError, match="predict_proba"):
        scored(candidate=(model, frame), metrics=["log_loss"])


def test_regression(tmp_path):
    frame, _, y = data()
    model = LinearRegression().fit(frame, y)
    found = evaluate(candidate=(model, frame), champion=(model, frame), y=y, task="regression", same_model=True)
    assert [m.name for m in found.metrics] == ["r2", "rmse"]
    assert found.metrics[1].candidate == pytest.approx(root_mean_squared_error(y, model.predict(frame)))
    found.to_parquet(tmp_path / "e.parquet")
    back = Evaluation.from_parquet(tmp_path / "e.parquet")
    assert back.same_model
    assert back.n_classes is None
    assert back.counts == {}


class Odd:
    """A model that answers whatever a test wants."""

    def __init__(self, classes=("late", "ok"), **answers):
        self.classes_ = np.array(classes, dtype=object)
        for name, value in answers.items():
            setattr(self, name, lambda X, value=value: np.asarray(value)[: len(X)])


FRAME, Y, VALUES = data()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": Y.iloc[:0]}, "no rows"),
        ({"y": Y.where(Y.index > 2)}, "3 of 400 holdout rows have no label"),
        ({"y": pd.Series(["ok"] * 400)}, "all 400 holdout rows have the class 'ok'"),
        ({"y": Y.replace("ok", "fine")}, "'fine'"),
        ({"classes": ["ok"]}, "at least two classes"),
        ({"classes": None}, "at least two classes"),
        ({"positive": "lost"}, "positive class 'lost'"),
        ({"metrics": ["roc_auk"]}, "no metric 'roc_auk'"),
        ({"metrics": ["rmse"]}, "for regression"),
        ({"gate_metrics": ["r2"]}, "for regression"),
        ({"candidate": (LogisticRegression().fit(FRAME, Y), FRAME.iloc[:7])}, "7 rows"),
        ({"slices": {"g": pd.Series([1])}}, "slice column 'g' has 1 rows"),
        ({"candidate": (Odd(predict_proba=np.full((400, 2), np.nan)), FRAME)}, "800 values that are NaN"),
        ({"candidate": (Odd(predict_proba=np.full((400, 2), 0.7)), FRAME)}, "no probabilities"),
        ({"candidate": (Odd(predict_proba=np.full((400, 3), 1 / 3)), FRAME)}, "shape"),
        ({"candidate": (Odd(predict_proba=np.full((10, 2), 0.5)), FRAME)}, "shape"),
        ({"candidate": (Odd(["a", "ok"], predict_proba=np.full((400, 2), 0.5)), FRAME)}, "the candidate has the class"),
        ({"candidate": (Odd(predict=["huh"] * 400), FRAME), "metrics": ["accuracy"]}, "'huh'"),
        ({"champion": (DummyClassifier().fit(FRAME, ["x", "y"] * 200), FRAME)}, "the champion has the class"),
    ],
)
def test_what_cannot_be_evaluated_is_said(changes, message):
    with pytest.raises(EvaluationError, match=message):
        scored(**changes)


@pytest.mark.parametrize(
    ("y", "said", "message"),
    [
        (pd.Series(["x"] * 400), VALUES, "not numeric"),
        (VALUES.where(VALUES.index > 0, np.inf), VALUES, "infinite"),
        (VALUES, np.full(400, np.inf), "400 values that are NaN or infinite"),
        (VALUES, np.ones((400, 2)), "shape"),
        (VALUES * 0, VALUES, None),
    ],
)
def test_what_cannot_be_evaluated_in_regression_is_said(y, said, message):
    def run():
        return evaluate(candidate=(Odd(predict=said), FRAME), champion=None, y=y, task="regression", metrics=["rmse"])

    if message is None:
        assert run().metrics[0].candidate > 0
    else:
        with pytest.raises(EvaluationError, match=message):
            run()


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "e.parquet"
    scored().to_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptObject, match="cannot be read"):
        Evaluation.from_parquet(path)
    FRAME.to_parquet(path)
    with pytest.raises(CorruptObject, match="not an evaluation"):
        Evaluation.from_parquet(path)
