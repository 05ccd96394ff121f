"""The ``experiment`` section: what is wrong with it is told by the file alone, with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.config.issues import InvalidPipeline
from airflow_mlops.config.loader import load_text, read_pipeline
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.origins import effective
from airflow_mlops.config.settings import Settings

MODEL = """\
pipeline: flights
level: 2
data: {source: "flights/*.parquet", target: late, positive: 1, id: flight}
train: {estimator: sklearn.ensemble.HistGradientBoostingClassifier}
evaluate: {metrics: [roc_auc], gates: [{metric: roc_auc, at_least: 0.6}]}
retrain: {schedule: "@weekly"}
experiment:
"""
FUNCTION = "pipeline: tour\nlevel: 2\nexperiment: {callable: tour:length, direction: minimize, space: {x: [1]}}\n"


def problems(text: str, **settings: Any) -> list[tuple[int, str]]:
    with pytest.raises(InvalidPipeline) as found:
        load_text(text, settings=Settings(**settings))
    return [(issue.line, issue.message) for issue in found.value.issues if issue.severity == "error"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("  metric: roc_acu\n  space: {max_iter: [10]}\n", "there is no metric `roc_acu`"),
        ("  space: {max_itr: [10]}\n", "`HistGradientBoostingClassifier` has no parameter `max_itr`"),
        ("  space: {max_iter: [-1]}\n", "`max_iter` of `HistGradientBoostingClassifier` must be a whole number of"),
        ("  candidates: [{window: 3d}]\n", "`experiment.candidates` with a `window` need `data.timestamp`"),
        ("  candidates: [{estimator: sklearn.svm.SVCC}]\n", "scikit-learn has no estimator `sklearn.svm.SVCC`"),
        (
            "  candidates: [{estimator: sklearn.linear_model.Ridge}]\n",
            "`Ridge` is a regressor, and this pipeline is for",
        ),
        (
            "  candidates: [{estimator: sklearn.linear_model.LogisticRegression, params: {CC: 1.0}}]\n",
            "`LogisticRegression` has no parameter `CC`",
        ),
        (
            "  candidates: [{estimator: sklearn.linear_model.LogisticRegression, space: {C: [-1.0]}}]\n",
            "`C` of `LogisticRegression` must be a number above 0",
        ),
        (
            "  strategy: halving\n  halving: {resource: rounds, max_resource: 9}\n  space: {max_iter: [10]}\n",
            "`HistGradientBoostingClassifier` has no parameter `rounds` to ration",
        ),
        (
            "  strategy: halving\n  halving: {resource: max_iter, max_resource: 9}\n  space: {max_iter: [10]}\n",
            "is also in a `space`",
        ),
        ("  candidates: [{features: other.code:make}]\n", "is not in [mlops] allowed_imports"),
    ],
)
def test_what_is_wrong_is_told(section: str, message: str) -> None:
    found = problems(MODEL + section, allowed_imports=())
    assert len(found) == 1, found
    assert message in found[0][1]
    assert found[0][0] >= 7


def test_a_space_that_no_candidate_takes_is_not_judged() -> None:
    own = "{estimator: sklearn.naive_bayes.GaussianNB}"
    assert load_text(f"{MODEL}  space: {{anything: [1]}}\n  candidates: [{own}]\n").experiment is not None


def test_an_experiment_needs_level_2() -> None:
    text = MODEL.replace("level: 2", "level: 1") + "  space: {max_iter: [10]}\n"
    assert problems(text) == [(7, "`experiment` needs `level: 2`")]


def test_a_function_needs_no_model() -> None:
    config = load_text(FUNCTION)
    assert not config.has_model
    assert PipelineConfig.model_validate(config).has_model is False
    assert load_text(MODEL + "  space: {max_iter: [10]}\n").has_model


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("train: {estimator: sklearn.svm.SVC}", "train"),
        ("data: {source: x.csv, target: y}", "data"),
        ("monitor: {}", "monitor"),
    ],
)
def test_a_function_has_no_part_of_a_model(line: str, key: str) -> None:
    found = problems(f"{FUNCTION}{line}\n")
    assert [message for _, message in found] == [f"`{key}` is of a model, and `experiment.callable` has none"]


def test_a_wrong_function_does_not_ask_for_a_model() -> None:
    found = problems(FUNCTION.replace("tour:length", "tour.length"))
    assert [message for _, message in found] == ["`experiment.callable`: write module:function, like my_pkg.data:load"]


def test_a_function_must_be_allowed() -> None:
    assert "is not in [mlops] allowed_imports" in problems(FUNCTION, allowed_imports=("mine",))[0][1]
    assert load_text(FUNCTION, settings=Settings(allowed_imports=("tour",)))


def test_nothing_is_told_of_a_model_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "tour.yaml").write_text(FUNCTION)
    config, source = read_pipeline(tmp_path / "tour.yaml")
    keys = {setting.path.partition(".")[0] for setting in effective(config, source)}
    assert "experiment" in keys
    assert not keys & {"data", "train", "validate", "evaluate", "monitor", "retrain", "deploy"}
