"""What a file's names and arguments are told, before anything is imported or run."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config import catalogue
from airflow_mlops.config.issues import Issue
from airflow_mlops.config.semantics import check
from airflow_mlops.config.yaml_source import parse

PIPELINES = sorted(Path(__file__).parents[3].glob("dags/pipelines/*.yaml"))
BETWEEN = "expect_column_values_to_be_between"
HGB = "sklearn.ensemble.HistGradientBoostingClassifier"


def found(text: str) -> list[Issue]:
    source = parse(text, "p.yaml")
    assert not source.issues
    check(source)
    return source.issues


def one(text: str) -> Issue:
    issues = found(text)
    assert len(issues) == 1, [i.message for i in issues]
    return issues[0]


def train(estimator: str, rest: str = "", evaluate: str = "[accuracy]", task: str = "") -> str:
    head = f"task: {task}\n" if task else ""
    return f"{head}train: {{estimator: {estimator}{rest}}}\nevaluate: {{metrics: {evaluate}}}\n"


def expectation(name: str, arguments: str) -> str:
    return f"validate:\n  expectations:\n    - {name}: {{{arguments}}}\n"


@pytest.mark.parametrize("path", PIPELINES, ids=lambda p: p.stem)
def test_the_pipelines_of_the_project_have_nothing_to_say(path):
    assert found(path.read_text(encoding="utf-8")) == []


def test_a_file_of_many_right_things_has_no_issue():
    assert not found("""\
task: classification
validate:
  expectations:
    - expect_column_values_to_be_between: {column: a, min_value: 2013-01-01, max_value: 2014-01-01, mostly: 0.9}
    - expect_column_values_to_be_between: {column: a, min_value: 1, max_value: 1, severity: warning, notes: why}
    - expect_column_values_to_match_regex_list: {column: a, regex_list: ['^\\d+$', "[ab]"], match_on: any}
    - expect_table_row_count_to_be_between: {min_value: 10}
    - expect_column_mean_to_be_between: {column: a, max_value: {$PARAMETER: high}}
train:
  estimator: sklearn.ensemble.RandomForestClassifier
  params: {max_features: sqrt, max_depth: null, class_weight: {a: 1}, n_jobs: -1, max_samples: 0.5, random_state: 3}
  search: {metric: neg_log_loss, space: {max_features: [log2, 0.5, 3, null], bootstrap: [true, false]}}
evaluate:
  metrics: [roc_auc, log_loss, brier, neg_log_loss, f1_macro]
  gates:
    - {metric: log_loss, at_most: 0.5}
    - {metric: neg_log_loss, at_least: -0.5}
    - {metric: accuracy, at_least: 1}
    - {metric: log_loss, versus: champion, not_worse_by: 0.1}
    - {serving: {p95_ms: 20}}
monitor: {performance: {metric: roc_auc}}
""")


# --- estimators ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "message", "suggestion"),
    [
        ("LogisticRegression", "is a name alone", "write sklearn.linear_model.LogisticRegression"),
        ("RandomForestClasifier", "is a name alone", "write sklearn.ensemble.RandomForestClassifier"),
        ("sklearn.ensemble.LogisticRegression", "has no estimator", "it is `sklearn.linear_model.LogisticRegression`"),
        ("sklearn.LogisticRegression", "has no estimator", "it is `sklearn.linear_model.LogisticRegression`"),
        ("sklearn.linear_model._logistic.LogisticRegression", "has no", "it is `sklearn.linear_model.LogisticReg"),
        ("sklearn.linear_model.LogisticRegresion", "has no", "did you mean `sklearn.linear_model.LogisticRegression`"),
        ("sklearn.foo.Xyzzy", "has no estimator `sklearn.foo.Xyzzy`", "see scikit-learn's list"),
        ("sklearn.cluster.KMeans", "neither a classifier nor a regressor", "HistGradientBoostingClassifier"),
        ("sklearn.preprocessing.StandardScaler", "neither a classifier nor a regressor", "name one of the two"),
    ],
)
def test_estimators(estimator, message, suggestion):
    issue = one(train(estimator))
    assert (issue.code, issue.path, issue.severity) == ("estimator", "train.estimator", "error")
    assert (issue.line, issue.column) == (1, 20)
    assert message in issue.message
    assert suggestion in str(issue.suggestion)


@pytest.mark.parametrize(
    "estimator", ["my_pkg.models.LogisticRegresion", "xgboost.XGBClassifier", "Xyzzy", "sklearn.calibration.LinearSVC"]
)
def test_estimators_that_cannot_be_judged_or_are_told_of_elsewhere(estimator):
    assert not found(train(estimator))


def test_an_estimator_of_the_other_task():
    issue = one(train("sklearn.linear_model.Ridge", evaluate="[roc_auc, rmse]", task="classification"))
    assert issue.message == "`Ridge` is a regressor, and `task` is classification"
    assert issue.suggestion == "name a classifier, or write `task: regression`"


@pytest.mark.parametrize(
    ("estimator", "missing"),
    [("sklearn.multiclass.OneVsRestClassifier", "`estimator`"), ("sklearn.pipeline.Pipeline", "`steps`"),
     ("sklearn.model_selection.GridSearchCV", "`estimator` and `param_grid`")],
)  # fmt: skip
def test_estimators_that_cannot_be_made_from_a_file(estimator, missing):
    issue = one(train(estimator))
    assert issue.code == "parameter"
    assert missing in issue.message
    assert "train.callable" in str(issue.suggestion)


# --- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message", "suggestion"),
    [
        ("max_iters: 5", "has no parameter `max_iters`", "did you mean `max_iter`?"),
        ("5: 5", "has no parameter `5`", "it takes categorical_features, class_weight"),
        ("estimator__x: 5", "has no parameter `estimator__x`", "and 9 more"),
        (
            "max_iter: 0",
            "`max_iter` of `HistGradientBoostingClassifier` must be a whole number of at least 1, not 0",
            "",
        ),
        ("max_iter: 1e2", "not 100.0", "write 100"),
        ("max_iter: 1.5", "must be a whole number of at least 1, not 1.5", ""),
        ("max_iter: [100]", "not a list", ""),
        ("max_iter: {a: 1}", "not a mapping", ""),
        ("max_iter: null", "not empty", ""),
        ('learning_rate: "0.1"', "must be a number above 0, not the text '0.1'", "remove the quotes"),
        ('learning_rate: "-1"', "not the text '-1'", ""),
        ("max_depth: None", "must be a whole number of at least 1 or null", "write null, without quotes"),
        ("warm_start: yes", "must be true or false, not the text 'yes'", "write true"),
        ("warm_start: Off", "must be true or false", "write false"),
        ("loss: logloss", "must be 'log_loss'", "did you mean `log_loss`?"),
        ("max_features: 30", "a number with a decimal point above 0 and at most 1", "write 0.3, if 30 % is meant"),
        ("random_state: -1", "of at least 0 and at most 4294967295 or null, not -1", ""),
    ],
)
def test_parameters(params, message, suggestion):
    issue = one(train(HGB, f", params: {{{params}}}"))
    assert (issue.code, issue.severity) == ("parameter", "error")
    assert issue.path == "train.params." + params.split(":")[0]
    assert message in issue.message
    assert suggestion in str(issue.suggestion)


def test_each_value_of_the_search_space_is_judged():
    issues = found(train(HGB, ", search: {space: {learning_rate: [0.1, -1, fast], leaning_rate: [1], max_bins: 300}}"))
    assert [i.path for i in issues] == [
        "train.search.space.learning_rate.1",
        "train.search.space.learning_rate.2",
        "train.search.space.leaning_rate",
    ]
    assert issues[0].text[issues[0].column - 1 :].startswith("-1, fast")
    assert issues[2].suggestion == "did you mean `learning_rate`?"


def test_a_parameter_that_yaml_has_no_value_for():
    issue = one(train("sklearn.ensemble.BaggingClassifier", ", params: {estimator: sklearn.svm.SVC}"))
    assert issue.message == "`estimator` of `BaggingClassifier` must be null, not the text 'sklearn.svm.SVC'"
    issue = one(train("sklearn.multiclass.OneVsRestClassifier", ", params: {estimator: sklearn.svm.SVC}"))
    assert "takes what YAML cannot write" in issue.message


def test_parameters_of_a_callable_are_not_judged():
    assert not found("train: {callable: 'a.b:c', params: {max_iters: zero}}\n")


# --- metrics and gates -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("evaluate: {metrics: [r2, rocauc]}", "evaluate.metrics.1"),
        ("evaluate: {metrics: [r2], gates: [{metric: rocauc, at_least: 0.5}]}", "evaluate.gates.0.metric"),
        ("train: {search: {metric: rocauc}}", "train.search.metric"),
        ("monitor: {performance: {metric: rocauc}}", "monitor.performance.metric"),
    ],
)
def test_unknown_metrics_wherever_they_stand(text, path):
    issue = one(text)
    assert (issue.code, issue.path, issue.suggestion) == ("metric", path, "did you mean `roc_auc`?")
    assert issue.message == "there is no metric `rocauc`"


def test_a_metric_that_is_like_none():
    assert "scorer" in str(one("evaluate: {metrics: [zzzzzz]}").suggestion)


@pytest.mark.parametrize(
    "text",
    [
        "task: classification\nevaluate: {metrics: [rmse]}",
        train(HGB, evaluate="[rmse]"),
        "task: regression\nmonitor: {performance: {metric: roc_auc}}",
        train("sklearn.linear_model.Ridge", evaluate="[roc_auc]"),
    ],
)
def test_metrics_of_the_other_task(text):
    issue = one(text)
    assert issue.code == "metric"
    assert "and this pipeline is for" in issue.message
    assert str(issue.suggestion).startswith("use for example")


def test_metrics_without_a_known_task_fit():
    assert not found("evaluate: {metrics: [rmse, roc_auc]}")


def test_metrics_of_no_pipeline():
    assert "is for clustering" in one("evaluate: {metrics: [v_measure_score]}").message
    assert "is for clustering" in one("evaluate: {metrics: [f1_samples]}").message


def test_a_classifier_without_probabilities():
    issue = one(train("sklearn.svm.LinearSVC", evaluate="[roc_auc, log_loss]"))
    assert (issue.code, issue.path) == ("metric", "evaluate.metrics.1")
    assert "needs probabilities" in issue.message
    for text in ("train: {estimator: sklearn.svm.LinearSVC}", train("sklearn.svm.LinearSVC", evaluate="[]")):
        issue = one(text)
        assert issue.path == "train.estimator"
        assert "log_loss, a default of `evaluate.metrics`" in issue.message
    assert not found("train: {estimator: sklearn.svm.SVC}")


def test_a_metric_that_is_listed_twice_is_only_a_warning():
    issue = one("evaluate: {metrics: [r2, rmse, r2]}")
    assert (issue.code, issue.severity, issue.path) == ("duplicate", "warning", "evaluate.metrics.2")


def test_an_estimate_without_outcomes_needs_probabilities():
    wanted = "monitor: {performance: {estimate: true}}"
    issue = one("task: regression\ntrain: {estimator: sklearn.linear_model.Ridge}\n" + wanted)
    assert (issue.path, issue.severity) == ("monitor.performance.estimate", "error")
    assert "needs a classifier's probabilities" in issue.message
    assert not found(wanted)


def test_a_replay_of_nothing_is_only_a_warning():
    issue = one("monitor: {skew: {replay_rows: 50}}")
    assert (issue.code, issue.severity, issue.path) == ("skew", "warning", "monitor.skew")
    assert not found("monitor: {skew: {source: a.csv}}")
    assert not found("monitor: {skew: {}}\nfeatures: {callable: 'a:b'}")


LABELS = "monitor: {labels: {source: a.csv, join_on: i}}\n"


def test_what_a_rollout_never_asks_and_what_it_is_judged_by_is_a_warning():
    issue = one(f"{LABELS}deploy: {{verdict: {{max_shift: 0.3}}}}")
    assert (issue.code, issue.severity, issue.path) == ("rollout", "warning", "deploy.verdict.max_shift")
    assert not found("deploy: {verdict: {max_shift: 0.3}}")
    steps = "deploy: {rollout: [shadow, full], batch: {source: a.csv, schedule: '@daily'}}"
    issue = one(f"{LABELS}{steps}")
    assert (issue.severity, issue.path) == ("warning", "deploy.rollout")
    assert "judged by `monitor.performance.max_drop`" in issue.message
    gate = "evaluate: {gates: [{metric: roc_auc, versus: champion, not_worse_by: 0.01}]}\n"
    assert not found(f"{LABELS}{gate}{steps}")
    assert not found(f"{LABELS}deploy: {{rollout: [full]}}")


def test_a_fleet_that_trains_on_alarms_alone_lets_new_keys_wait():
    issue = one("fleet: {key: route}\nretrain: {when: [drift, performance]}")
    assert (issue.code, issue.severity, issue.path) == ("fleet", "warning", "retrain.when")
    assert "a new key has none" in issue.message
    assert not found("fleet: {key: route}\nretrain: {when: [drift], schedule: '@monthly'}")
    assert not found("fleet: {key: route}\nretrain: {when: [drift, new_data]}")
    assert not found("fleet: {key: route}\nretrain: {schedule: '@monthly'}")
    assert not found("retrain: {when: [drift]}")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("deploy: {rollout: [shadow, full]}", "deploy.rollout"),
        (f"level: 2\n{train(HGB)}", "level"),
        (f"level: {{microsoft: 3}}\n{train(HGB)}deploy: {{batch: {{source: a.csv}}}}", "level"),
    ],
)
def test_a_rollout_without_windows_to_wait_for_is_a_warning(text, path):
    issue = one(text)
    assert (issue.severity, issue.path) == ("warning", path)
    assert "`deploy.batch.schedule` is not set" in issue.message


@pytest.mark.parametrize(
    "text",
    [
        f"level: 1\n{train(HGB)}",
        f"level: 2\n{train(HGB)}deploy: {{rollout: [full]}}",
        f"level: 2\n{train(HGB)}deploy: {{batch: {{schedule: '@daily'}}}}",
        "level: 2\nexperiment: {callable: 'a:b'}",
        f"level: nothing\n{train(HGB)}",
    ],
)
def test_no_rollout_in_steps_waits_for_nothing(text):
    assert not found(text)


@pytest.mark.parametrize(
    ("gate", "key", "message", "suggestion"),
    [
        ("metric: log_loss, at_least: 0.4", "at_least", "lower is better", "write `at_most`"),
        ("metric: rmse, at_least: 3, slices: [a]", "at_least", "lower is better", "write `at_most`"),
        ("metric: roc_auc, at_most: 0.9", "at_most", "higher is better", "write `at_least`"),
        ("metric: neg_log_loss, at_most: 0.4", "at_most", "higher is better", "{metric: log_loss, at_most: …}"),
        ("metric: neg_log_loss, at_least: 0.4", "at_least", "never above 0", "{metric: log_loss, at_most: …}"),
        ("metric: roc_auc, at_least: 62", "at_least", "never above 1", "write at_least: 0.62"),
        ("metric: log_loss, at_most: -0.4", "at_most", "never below 0", "None"),
        ("value: {matrix: [[0, -5], [-1, 10]]}, at_least: 11", "at_least", "no row is worth more than 10", "None"),
        (
            "value: {name: roc_auc, callable: 'a:b'}, at_least: 0",
            "value.name",
            "the name of a metric",
            "something else",
        ),
    ],
)
def test_gates_that_nothing_passes(gate, key, message, suggestion):
    issue = one(f"evaluate:\n  gates:\n    - {{{gate}}}\n")
    assert (issue.code, issue.path) == ("gate", f"evaluate.gates.0.{key}")
    assert message in issue.message
    assert suggestion in str(issue.suggestion)


def test_label_limits_are_for_classes():
    text = "validate: {labels: {max_conflicts: 0.1}}\n"
    issue = one(train("sklearn.linear_model.LinearRegression", evaluate="[r2]") + text)
    assert (issue.code, issue.path) == ("labels", "validate.labels.max_conflicts")
    assert not found(train("sklearn.linear_model.LogisticRegression") + text)


def test_a_matrix_is_for_classes():
    text = train("sklearn.linear_model.LinearRegression", evaluate="[r2], gates: [{value: {matrix: [[0, 1], [1, 0]]}}]")
    issue = one(text)
    assert (issue.code, issue.path) == ("gate", "evaluate.gates.0.value.matrix")
    assert "for regression" in issue.message


@pytest.mark.parametrize(
    "gate",
    ["value: {matrix: [[0, x], 3]}, at_least: 9", "value: {matrix: 3}, at_least: 1", "value: [1]", "value: {name: 3}",
     "metric: log_loss, at_least: 1, at_most: 2", "metric: log_loss, at_least: high", "metric: log_loss",
     "metric: log_loss, at_least: 1, versus: champion, better_by: 0", "metric: r2, at_least: -3", "metric: [roc_auc]"],
)  # fmt: skip
def test_gates_that_are_told_of_elsewhere_or_may_pass(gate):
    assert not found(f"evaluate: {{gates: [{{{gate}}}]}}")


# --- kinds of values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "takes", "refuses"),
    [
        ({"options": ["a", False]}, ["a", False], [0, "", None, "b"]),
        ({"int": [1, 3, "left"]}, [1, 2, True], [0, 3, False, 1.0, "1"]),
        ({"int": [1, 3, "right"]}, [2, 3], [1, 4]),
        ({"float": [0, None, "neither"]}, [0.1, 1e300], [0.0, 1, True, -0.1]),
        ({"number": [None, 1, "both"]}, [-5, 1, 0.5, True], [1.1, "0.5", None]),
        ({"real": [0, 1, "both"]}, [0, "0.5", 1.0], ["2", "x", [], None]),
        ({"items": ["str"]}, [[], ["a"]], ["a", ["a", 1], {}]),
        ("flag", [True, "No", 1], [2, "maybe", None]),
        ("count", [1, "7", 1.5], ["x", None, []]),
        ("scalar", ["x", 1, True], [None, [], {}]),
        ("time", ["2024-01-31", "2024-01-31T10:00", 5], ["low", None, []]),
        ("none", [None], ["", 0]),
    ],
)
def test_kinds(kind, takes, refuses):
    assert [catalogue.accepts([kind], value) for value in takes] == [True] * len(takes)
    assert [catalogue.accepts([kind], value) for value in refuses] == [False] * len(refuses)
    assert not catalogue.accepts([], takes[0])


# --- other versions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "text"),
    [
        ("scikit-learn", train("sklearn.linear_model.NewRegression")),
        ("scikit-learn", train(HGB, ", params: {brand_new: 1}")),
        ("scikit-learn", train(HGB, ", params: {loss: brand_new}")),
        ("scikit-learn", "evaluate: {metrics: [brand_new]}"),
        ("great-expectations", expectation("expect_brand_new", "column: a")),
        ("great-expectations", expectation("expect_column_values_to_be_null", "column: a, brand_new: 1")),
    ],
)
@pytest.mark.parametrize(
    ("step", "severity"), [((0, 0), "error"), ((0, 1), "warning"), ((1, -1), "warning"), ((0, -1), "warning")]
)
def test_names_that_another_version_may_know_are_warnings(monkeypatch, library, text, step, severity):
    major, minor, *_ = map(int, catalogue.catalogue()["versions"][library].split("."))
    version = f"{major + step[0]}.{minor + step[1]}.99"
    monkeypatch.setattr(importlib.metadata, "version", {library: version}.__getitem__)
    issue = one(text)
    assert issue.severity == severity
    assert (f"as of {library} {major}.{minor}" in issue.message) is (severity == "warning")


def test_versions_are_looked_up_only_for_an_unknown_name(monkeypatch):
    def version(name: str) -> str:
        raise AssertionError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert not found(PIPELINES[0].read_text(encoding="utf-8"))
    # None of these depends on a version.
    assert one("evaluate: {gates: [{metric: log_loss, at_least: 1}]}").severity == "error"
    assert one(expectation(BETWEEN, "column: a, min_value: 9, max_value: 1")).severity == "error"


def test_a_library_that_is_not_installed_is_taken_for_the_known_one(monkeypatch):
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert one("evaluate: {metrics: [brand_new]}").severity == "error"


# --- anything at all -------------------------------------------------------------------------------

KEYS = st.sampled_from(
    ["train", "estimator", "params", "search", "space", "metric", "metrics", "evaluate", "gates", "validate", "task",
     "expectations", "monitor", "performance", "at_least", "at_most", "max_iter", "column", "mostly", "min_value",
     "max_value", "regex", "regex_list", BETWEEN, "expect_column_values_to_match_regex", "versus", "x"]
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**50), 10**50)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(
        [HGB, "sklearn.svm.LinearSVC", "sklearn.x.Y", "classification", "roc_auc", "neg_log_loss", "(", "KMeans"]
    )
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25
)
MISSHAPEN = st.fixed_dictionaries(
    {
        "train": ANYTHING | st.fixed_dictionaries({"estimator": SCALARS, "params": ANYTHING, "search": ANYTHING}),
        "evaluate": ANYTHING | st.fixed_dictionaries({"metrics": ANYTHING, "gates": st.lists(ANYTHING, max_size=3)}),
        "validate": ANYTHING
        | st.fixed_dictionaries({"expectations": st.lists(st.dictionaries(KEYS, ANYTHING, max_size=1), max_size=3)}),
        "monitor": ANYTHING,
        "task": ANYTHING,
    }
)


@settings(max_examples=150, deadline=None)
@given(ANYTHING | MISSHAPEN)
def test_no_data_makes_it_raise_and_every_issue_is_in_the_file(data: Any):
    text = json.dumps(data)
    source = parse(text, "p.yaml")
    before = len(source.issues)
    check(source)
    for issue in source.issues[before:]:
        assert 1 <= issue.line <= len(source.text.lines)
        assert issue.message
        assert len(issue.message) < 600
        assert str(issue)
        path = tuple(int(step) if step.isdigit() else step for step in issue.path.split("."))
        assert source.resolve(path)[0] == path


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from airflow_mlops.config.semantics import check;"
        "from airflow_mlops.config.yaml_source import parse;"
        "check(parse('train: {estimator: sklearn.x.Y}', 'p'));"
        "print([m for m in ('sklearn', 'great_expectations', 'pandas', 'numpy', 'airflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_watched_metric_that_no_evaluation_measures_is_an_error():
    watching = "monitor: {performance: {metric: f1}}\n"
    issue = one(train(HGB, evaluate="[accuracy, roc_auc]") + watching)
    assert (issue.severity, issue.path) == ("error", "monitor.performance.metric")
    assert "`f1` is watched, and no evaluation measures it" in issue.message
    assert issue.suggestion == "add it to `evaluate.metrics`, or watch one of accuracy, roc_auc"


@pytest.mark.parametrize("evaluate", ["[f1]", "[accuracy], gates: [{metric: f1, at_least: 0.5}]"])
def test_a_watched_metric_may_be_one_of_a_gate(evaluate):
    assert not found(train(HGB, evaluate=evaluate) + "monitor: {performance: {metric: f1}}\n")
