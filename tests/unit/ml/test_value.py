from __future__ import annotations

import sys
import types

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from sklearn.linear_model import LinearRegression, LogisticRegression

from airflow_mlops.config.models import Evaluate, Gate, Value
from airflow_mlops.exceptions import CodeNotAllowed, EvaluationError
from airflow_mlops.ml.evaluation import Evaluation, evaluate
from airflow_mlops.ml.gates import decide
from airflow_mlops.ml.metrics import Predictions
from airflow_mlops.ml.value import ValueMetric, value_functions

MATRIX = [[0, -5], [-1, 10]]


@pytest.fixture
def house(monkeypatch):
    module = types.ModuleType("house_value")
    sys.modules["house_value"] = module
    yield module
    del sys.modules["house_value"]


def put(module, function):
    function.__module__ = "house_value"
    setattr(module, function.__name__, function)
    return f"house_value:{function.__name__}"


def judged(gates, n=2000, seed=0, champion=True, classes=("ok", "late"), positive="late", columns=None):
    """Two logistic models, the candidate with one more feature, judged on ``n`` rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2 * n, 2))
    p = 1 / (1 + np.exp(1 - 2 * x[:, 0] - 2 * x[:, 1]))
    y = np.where(rng.random(2 * n) < p, classes[1], classes[0]).astype(object)
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(amount=rng.gamma(2, 50, size=2 * n))
    train, test = frame.iloc[:n], frame.iloc[n:].reset_index(drop=True)
    mine = LogisticRegression().fit(train[["a", "b"]], y[:n])
    theirs = LogisticRegression().fit(train[["a"]], y[:n])
    config = Evaluate.model_validate({"gates": gates})
    found = evaluate(
        candidate=(mine, test[["a", "b"]]),
        champion=(theirs, test[["a"]]) if champion else None,
        y=pd.Series(y[n:]),
        task="classification",
        metrics=["accuracy"],
        worth=value_functions(config.gates, test, ["house_value"]),
        classes=list(classes),
        positive=positive,
        slices={"half": pd.Series(np.where(test.a > 0, "high", "low"))},
    )
    return found, decide(config.gates, found)


def test_a_matrix_is_worth_what_a_loop_says(tmp_path):
    gate = {"value": {"name": "profit", "matrix": MATRIX}, "at_least": 0.2}
    found, report = judged([gate])
    labels = found.frame.candidate_label
    by_hand = [MATRIX[t][p] for t, p in zip(found.y, labels, strict=True)]
    assert report.results[0].value == pytest.approx(np.mean(by_hand))
    assert report.verdict == "passed"
    assert report.results[0].sentence.startswith("profit ")
    assert report.results[0].name == "profit at_least 0.2"
    found.to_parquet(tmp_path / "e")
    again = decide([Gate.model_validate(gate)], Evaluation.from_parquet(tmp_path / "e"))
    assert again.results[0].value == report.results[0].value


def test_the_positive_class_is_the_last_one():
    gate = {"value": {"matrix": MATRIX}, "at_least": -9.0}
    late = judged([gate], positive="late")[1].results[0].value
    ok = judged([gate], positive="ok")[1].results[0].value
    assert late != ok
    named = {"value": {"matrix": MATRIX, "classes": ["ok", "late"]}, "at_least": -9.0}
    assert judged([named], positive="ok")[1].results[0].value == late
    with pytest.raises(EvaluationError, match="is for the classes"):
        judged([{"value": {"matrix": MATRIX, "classes": ["ok", "later"]}, "at_least": 0.0}])


def test_it_compares_with_the_champion_and_looks_at_slices():
    value = {"value": {"matrix": MATRIX}}
    found, report = judged(
        [
            value | {"versus": "champion", "better_by": 0.1},
            value | {"versus": "champion", "not_worse_by": 0.1},
            value | {"at_least": -9.0, "slices": ["half"]},
        ]
    )
    assert [r.verdict for r in report.results] == ["passed"] * 3
    better = report.results[0]
    assert better.low < better.value < better.high
    assert better.value == pytest.approx(
        (found.frame["candidate_value:value"] - found.frame["champion_value:value"]).mean()
    )
    assert {s.value_of for s in report.results[2].slices} == {"high", "low"}
    turned = judged([value | {"versus": "champion", "better_by": 9.0}])[1]
    assert turned.verdict == "rejected"


def test_three_classes():
    y = np.array([0, 1, 2, 2])
    values = value_functions(
        [Gate.model_validate({"value": {"matrix": [[1, 0, 0], [0, 2, 0], [-7, 0, 3]]}, "at_least": 0.0})],
        pd.DataFrame(),
        [],
    )
    worth = values["value"](y, Predictions(labels=np.array([0, 1, 0, 2])), ("a", "b", "c"))
    assert worth.tolist() == [1, 2, -7, 3]
    with pytest.raises(EvaluationError, match="3 rows, and the target has 2 classes"):
        values["value"](y[:2], Predictions(labels=np.array([0, 1])), ("a", "b"))


def test_a_function_sees_truth_predictions_and_rows(house):
    seen = {}

    def profit(y, labels, proba, rows):
        seen.update(y=y, labels=labels, proba=proba, rows=rows)
        return np.where(labels == "late", np.where(y == "late", rows.amount, -rows.amount), 0)

    found, report = judged([{"value": {"callable": put(house, profit)}, "at_least": 0.0}])
    assert set(seen["y"]) == set(seen["labels"]) == {"ok", "late"}
    assert list(seen["proba"].columns) == ["ok", "late"]
    assert list(seen["rows"].columns) == ["a", "b", "amount"]
    f = found.frame
    said = f.candidate_label == 1
    by_hand = np.where(said, np.where(f.y == 1, 1, -1) * seen["rows"].amount, 0).mean()
    assert report.results[0].value == pytest.approx(by_hand)


def test_a_function_for_regression(house):
    def over(y, labels):
        return -np.maximum(labels - y, 0)

    gates = [Gate.model_validate({"value": {"callable": put(house, over)}, "at_least": -1.0})]
    x = pd.DataFrame({"a": np.arange(40.0)})
    model = LinearRegression().fit(x, x.a)
    found = evaluate(
        candidate=(model, x),
        champion=None,
        y=x.a,
        task="regression",
        worth=value_functions(gates, x, ["house_value"]),
    )
    assert decide(gates, found).verdict == "passed"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y: np.ones(3), r"returned shape \(3,\)"),
        (lambda y: np.full(len(y), np.nan), "NaN or infinite"),
        (lambda y: 1 / 0, "ZeroDivisionError"),
        (lambda amount: amount, "asks for 'amount'"),
        (lambda: 1, "asks for nothing"),
    ],
)
def test_a_wrong_function_is_an_error(house, function, message):
    function.__name__ = "wrong"
    with pytest.raises(EvaluationError, match=message):
        judged([{"value": {"callable": put(house, function)}, "at_least": 0.0}], n=200)


def test_a_function_quotes_nothing_private(house):
    def leaky(rows):
        raise ValueError(f"CANARY {rows.amount.iloc[0]}")

    gates = [Gate.model_validate({"value": {"callable": put(house, leaky)}, "at_least": 0.0})]
    values = value_functions(gates, pd.DataFrame({"amount": [777.0]}), ["house_value"], ["amount"])
    with pytest.raises(EvaluationError) as e:
        values["value"](np.array([0]), Predictions(), None)
    assert "CANARY" not in str(e.value)
    assert e.value.__cause__ is None


def test_functions_come_from_allowed_packages():
    gates = [Gate.model_validate({"value": {"callable": "os:getcwd"}, "at_least": 0.0})]
    with pytest.raises(CodeNotAllowed):
        value_functions(gates, pd.DataFrame(), ["house_value"])


def test_equal_labels_are_not_taken_for_equal_models():
    """Both say the same class everywhere, with other probabilities: not one row shows a difference."""
    n, y = 1000, np.tile([0, 1], 500)
    frame = pd.DataFrame({"row": np.arange(n), "y": y})
    for model, p in (("candidate", 0.9), ("champion", 0.8)):
        frame[f"{model}_proba_1"], frame[f"{model}_label"] = p, 1
        frame[f"{model}_proba_0"] = 1 - p
        frame[f"{model}_value:value"] = np.where(y == 1, 10.0, -5.0)
    found = Evaluation("classification", ("ok", "late"), (), frame, True)
    value = Value(matrix=MATRIX)
    low, high = found.estimate(ValueMetric(value), against="champion").bounds(0.95)
    # A differing row is missed 1,000 times with a probability of 5 % where its share is 0.3 %; it is worth up to 11.
    assert low == pytest.approx(-11 * (1 - 0.05 ** (1 / n)))
    assert high == -low
    gate = {"value": {"matrix": MATRIX}, "versus": "champion"}
    assert decide([Gate.model_validate(gate | {"not_worse_by": 0.01})], found).verdict == "inconclusive"
    assert decide([Gate.model_validate(gate | {"not_worse_by": 0.05})], found).verdict == "passed"


@pytest.mark.parametrize(("blocks", "units"), [(None, 400), (np.arange(400) // 10, 40)])
def test_equal_values_of_different_numbers_are_bounded_too(blocks, units):
    worth = np.tile([0.0, 3.0], 200)
    frame = pd.DataFrame({"row": np.arange(400), "y": worth, "candidate_label": 1.0, "champion_label": 2.0})
    frame["candidate_value:value"] = frame["champion_value:value"] = worth
    words = None
    if blocks is not None:
        frame["block"], words = blocks, "blocks"
    found = Evaluation("regression", None, (), frame, True, blocks=words)
    low, _ = found.estimate(ValueMetric(Value(callable="a:b")), against="champion").bounds(0.95)
    assert low == pytest.approx(-3 * (1 - 0.05 ** (1 / units)))


def test_an_evaluation_without_the_values_says_so():
    frame = pd.DataFrame({"row": range(40), "y": [0, 1] * 20, "candidate_label": [0, 1] * 20})
    found = Evaluation("classification", ("ok", "late"), (), frame, False)
    with pytest.raises(EvaluationError, match="holds no values 'value'"):
        decide([Gate.model_validate({"value": {"matrix": MATRIX}, "at_least": 0.0})], found)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"matrix": MATRIX, "callable": "a:b"},
        {"matrix": [[1, 2]]},
        {"matrix": [[1]]},
        {"matrix": [[1, 1], [2, 2]]},
        {"matrix": [[0, float("inf")], [0, 1]]},
        {"callable": "a:b", "classes": ["x"]},
        {"matrix": MATRIX, "classes": ["x"]},
        {"matrix": MATRIX, "classes": ["x", "x"]},
    ],
)
def test_values_that_say_nothing_are_refused(value):
    with pytest.raises(ValidationError):
        Value.model_validate(value)


@pytest.mark.parametrize(
    "gate",
    [
        {"value": {"matrix": MATRIX}},
        {"value": {"matrix": MATRIX}, "at_most": 1.0},
        {"value": {"matrix": MATRIX}, "metric": "accuracy", "at_least": 1.0},
    ],
)
def test_gates_of_a_value_take_what_others_take(gate):
    with pytest.raises(ValidationError):
        Gate.model_validate(gate)


def test_two_values_have_two_names():
    gates = [{"value": {"matrix": MATRIX}, "at_least": 0.0}, {"value": {"matrix": [[1, 0], [0, 1]]}, "at_least": 0.0}]
    with pytest.raises(ValidationError, match="two different values are called `value`"):
        Evaluate.model_validate({"gates": gates})


@pytest.mark.parametrize("n", [200, 1000])
def test_false_promotions_at_the_boundary(n):
    """A candidate that is worth exactly as much as the champion is called better in at most 5 % of runs."""
    rng = np.random.default_rng(n)
    gate = Gate.model_validate({"value": {"matrix": MATRIX}, "versus": "champion", "better_by": 0.0})
    runs, wrong = 300, 0
    matrix = np.array(MATRIX, dtype=float)
    for _ in range(runs):
        y = (rng.random(n) < 0.4).astype(int)
        frame = pd.DataFrame({"row": np.arange(n), "y": y})
        for model in ("candidate", "champion"):
            label = np.where(rng.random(n) < 0.75, y, 1 - y)
            frame[f"{model}_label"], frame[f"{model}_value:value"] = label, matrix[y, label]
        wrong += decide([gate], Evaluation("classification", ("n", "p"), (), frame, True)).verdict == "passed"
    assert wrong / runs <= 0.05 + 2 * (0.05 * 0.95 / runs) ** 0.5
