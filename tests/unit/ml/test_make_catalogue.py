"""The catalogue says what the installed libraries say, and what the package's own code does with the names."""

from __future__ import annotations

import functools
import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import is_classifier, is_regressor
from sklearn.utils._param_validation import InvalidParameterError

from airflow_mlops.config import catalogue
from airflow_mlops.exceptions import EvaluationError, ExpectationError
from airflow_mlops.ml import expectations, make_catalogue
from airflow_mlops.ml.code import resolve
from airflow_mlops.ml.metrics import Metric, Predictions

KNOWN = catalogue.catalogue()
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 300, -0.5, 0.0, 0.5, 1.0, 2.5, "auto", "sqrt", "log_loss", "yes", "0.5",
    "2024-01-31", "balanced", "nothing", "", [], [1, 2], ["a", "b"], {}, {"a": 1},
]  # fmt: skip


@functools.cache
def generated() -> dict[str, dict[str, Any]]:
    return make_catalogue.catalogue()


def test_the_committed_catalogue_is_what_the_installed_libraries_give():
    committed = catalogue.Path(catalogue.__file__).with_name("catalogue.json").read_text(encoding="utf-8")
    again = "run: python -m airflow_mlops.ml.make_catalogue > airflow_mlops/config/catalogue.json"
    assert json.loads(committed) == generated(), again
    assert committed == make_catalogue.text(generated()), again
    assert len(committed) < 250_000


# --- estimators ------------------------------------------------------------------------------------


def built(path: str) -> Any:
    return resolve(path, ())()


def makeable() -> list[str]:
    return [path for path, entry in KNOWN["estimators"].items() if not entry["required"]]


def test_every_path_is_one_that_training_takes_and_names_what_it_says():
    for path in [*KNOWN["estimators"], *KNOWN["aliases"]]:
        assert resolve(path, ()).__name__ == path.rpartition(".")[2]
    for alias, path in KNOWN["aliases"].items():
        assert resolve(alias, ()) is resolve(path, ())


@pytest.mark.parametrize(
    "path",
    ["sklearn.ensemble.HistGradientBoostingClassifier", "sklearn.linear_model.LogisticRegression", "sklearn.svm.SVR",
     "sklearn.dummy.DummyClassifier", "sklearn.pipeline.Pipeline", "sklearn.neural_network.MLPRegressor"],
)  # fmt: skip
def test_estimators_are_listed_where_people_look(path):
    assert path in KNOWN["estimators"]


def test_kinds_are_what_scikit_learn_says_of_an_instance():
    judged = 0
    for path in makeable():
        try:
            kind = "classifier" if is_classifier(built(path)) else "regressor" if is_regressor(built(path)) else "other"
        except AttributeError:
            continue  # one that wraps another has no tags without it
        assert KNOWN["estimators"][path]["kind"] == kind, path
        judged += 1
    assert judged > 150


def test_required_parameters_are_those_that_cannot_be_left_out():
    for path, entry in KNOWN["estimators"].items():
        if entry["required"]:
            with pytest.raises(TypeError, match="required"):
                built(path)


def test_probabilities_are_missing_only_where_no_instance_has_them():
    lacking = {path for path, e in KNOWN["estimators"].items() if e.get("probabilities") is False}
    assert {"sklearn.svm.LinearSVC", "sklearn.linear_model.RidgeClassifier"} <= lacking
    assert "sklearn.svm.SVC" not in lacking  # has them on a condition
    for path in lacking:
        assert not hasattr(resolve(path, ()), "predict_proba")


def test_parameters_accept_exactly_what_scikit_learn_validates():
    """For all classifiers and regressors that can be made, each parameter by itself."""
    judged = refused = 0
    for path in makeable():
        entry = KNOWN["estimators"][path]
        if entry["kind"] == "other":
            continue
        estimator = built(path)
        assert set(entry["parameters"]) == set(estimator.get_params(deep=False)), path
        constraints = estimator._parameter_constraints
        for name, kinds in entry["parameters"].items():
            if kinds == ["any"]:
                continue
            # Validating this one alone says the same, and takes a tenth of the time.
            estimator._parameter_constraints = {name: constraints[name]}
            for value in VALUES:
                setattr(estimator, name, value)
                try:
                    estimator._validate_params()
                    valid = True
                except InvalidParameterError:
                    valid = False
                assert catalogue.accepts(kinds, value) is valid, f"{path} {name}={value!r} {kinds}"
                judged, refused = judged + 1, refused + (not valid)
    assert judged > 20_000
    assert 0.3 < refused / judged < 0.9


# --- metrics ---------------------------------------------------------------------------------------


def sample(task: str) -> tuple[np.ndarray, Predictions, int | None]:
    rng = np.random.default_rng(3)
    if task == "regression":
        y = rng.uniform(1, 9, 60)
        return y, Predictions(labels=y + rng.uniform(0.1, 0.9, 60)), None
    n = 2 if task == "binary" else 3
    y = np.arange(60) % n
    proba = rng.dirichlet(np.ones(n), 60) * 0.5 + 0.5 * np.eye(n)[y]
    labels = np.where(rng.random(60) < 0.2, (y + 1) % n, proba.argmax(axis=1))
    return y, Predictions(labels=labels, proba=proba), n


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_metrics_fit_the_tasks_they_can_be_computed_for(task):
    y, predictions, n_classes = sample(task)
    for name, entry in KNOWN["metrics"].items():
        metric = Metric(name)
        try:
            metric.check_task("regression" if n_classes is None else "classification", n_classes)
            printed = metric.printed(metric.score(y, predictions, n_classes=n_classes))
        except EvaluationError:
            assert task not in entry["tasks"], name
            continue
        assert task in entry["tasks"], name
        assert entry["lower_is_better"] == metric.lower_is_better
        if entry["best"] is not None:
            assert printed >= entry["best"] if entry["lower_is_better"] else printed <= entry["best"], name


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_best_value_is_that_of_perfect_predictions(task):
    y, _, n_classes = sample(task)
    perfect = Predictions(labels=y, proba=None if n_classes is None else np.eye(n_classes)[y])
    for name, entry in KNOWN["metrics"].items():
        if task in entry["tasks"] and entry["best"] is not None:
            metric = Metric(name)
            printed = metric.printed(metric.score(y, perfect, n_classes=n_classes))
            assert printed == pytest.approx(entry["best"], abs=1e-12), name


def test_metrics_need_probabilities_where_a_model_without_them_fails():
    y, said, n_classes = sample("binary")
    without = Predictions(labels=said.labels, decision=said.proba[:, 1])
    for name, entry in KNOWN["metrics"].items():
        if "binary" not in entry["tasks"]:
            continue
        if entry["probabilities"]:
            with pytest.raises(EvaluationError):
                Metric(name).score(y, without, n_classes=n_classes)
        else:
            assert math.isfinite(Metric(name).score(y, without, n_classes=n_classes)), name


@pytest.mark.parametrize("name", ["rmse", "mae", "mse", "mape", "brier", "log_loss", "neg_log_loss", "roc_auc", "r2"])
def test_aliases_are_listed(name):
    assert name in KNOWN["metrics"]


@pytest.mark.parametrize("name", ["auc", "neg_roc_auc", "neg_rmse", "loss", ""])
def test_what_is_not_listed_is_no_metric(name):
    assert name not in KNOWN["metrics"]
    with pytest.raises(EvaluationError):
        Metric(name)


# --- expectations ----------------------------------------------------------------------------------

COLUMNS = {"a": "number", "b": "number"}
GOOD: dict[str, Any] = {
    "column": "a", "column_A": "a", "column_B": "b", "column_list": ["a", "b"], "value_set": [1], "regex": "x",
    "regex_list": ["x"], "like_pattern": "x%", "like_pattern_list": ["x%"], "type_": "int", "value": 1,
    "sum_total": 1, "threshold": 1, "double_sided": True, "strftime_format": "%Y", "json_schema": {"type": "object"},
    "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 1]]}, "other_table_name": "t", "base_query": "q",
    "comparison_data_source_name": "s", "comparison_query": "q",
    "value_pairs_set": [[1, 2]],
}  # fmt: skip


def least(name: str) -> dict[str, Any]:
    entry = KNOWN["expectations"][name]
    return {k: GOOD[k] for k in entry["required"]} | ({"min_value": 1} if "one_of" in entry else {})


def why_refused(name: str, arguments: dict[str, Any]) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expectations.build([{name: arguments}], COLUMNS)
    except ExpectationError as e:
        return str(e)
    return None


def test_expectations_are_built_with_what_they_require_and_not_with_less():
    for name, entry in KNOWN["expectations"].items():
        given = least(name)
        assert why_refused(name, given) is None
        for key in given:
            assert why_refused(name, {k: v for k, v in given.items() if k != key}), f"{name} without {key}"
        for key in entry["columns"]:
            assert key in entry["arguments"]


def test_arguments_that_the_catalogue_refuses_are_refused_by_great_expectations():
    judged = 0
    for name, entry in KNOWN["expectations"].items():
        assert why_refused(name, least(name) | {"no_such_argument": 1})
        for key, kinds in entry["arguments"].items():
            for value in VALUES:
                # Great Expectations takes "" and [] for an empty mapping, and then for a parameter of the suite;
                # an empty meta is replaced by this package.
                tolerated = value in ("", []) or (key == "meta" and not value)
                if not tolerated and not catalogue.accepts(kinds, value):
                    assert why_refused(name, least(name) | {key: value}), f"{name} {key}={value!r} {kinds}"
                    judged += 1
    assert judged > 3000


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("mostly", [0, 1, 0.5, "0.5"]),
        ("min_value", [0, -1.5, None, "3", "2024-01-31"]),
        ("strict_min", [True, "yes", 0]),
    ],
)
def test_arguments_that_are_right_are_accepted(key, values):
    name = "expect_column_values_to_be_between"
    for value in values:
        assert catalogue.accepts(KNOWN["expectations"][name]["arguments"][key], value)
        assert why_refused(name, {"column": "a", "max_value": 9, key: value}) is None
