from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold

from airflow_mlops.config.models import Data, Train
from airflow_mlops.exceptions import (
    CodeNotAllowed,
    EvaluationError,
    PredictionError,
    TargetError,
    TrainingError,
    UntrustedArtifact,
)
from airflow_mlops.ml.estimators import build_estimator, pipeline
from airflow_mlops.ml.features import infer_schema
from airflow_mlops.ml.training import Trained, train
from airflow_mlops.registry.artifacts import dump_model, load_model

DATA = Data.model_validate({"source": "x.csv", "target": "late", "id": "flight"})


def flights(rows: int = 300, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    carrier = rng.choice(["AA", "UA", "DL"], rows)
    distance = rng.normal(1000, 300, rows)
    late = ((carrier == "UA") * 1.5 + distance / 500 + rng.normal(0, 0.4, rows)) > 2.6
    frame = pd.DataFrame(
        {
            "flight": [f"F{i}" for i in range(rows)],
            "carrier": carrier,
            "distance": distance,
            "stops": rng.integers(0, 3, rows).astype(float),
            "night": rng.random(rows) < 0.5,
            "late": late.astype(int),
            "minutes": distance / 10 + rng.normal(0, 1, rows),
        }
    )
    frame.loc[::17, "stops"] = np.nan
    frame.loc[::19, "carrier"] = None
    return frame


def fit(target: str = "late", frame: pd.DataFrame | None = None, *, said: list[str] | None = None, **kwargs) -> Trained:
    frame = flights() if frame is None else frame
    extra = {k: kwargs.pop(k) for k in ("task", "metrics", "allowed_imports", "timeout", "cwd") if k in kwargs}
    other = [c for c in ("late", "minutes") if c != target]
    data = DATA.model_copy(update={"target": target, "exclude": other})
    log = said.append if said is not None else None
    return train(frame, frame[target], infer_schema(frame, data), Train.model_validate(kwargs), log=log, **extra)


CLASSIFIERS = [
    "sklearn.ensemble.HistGradientBoostingClassifier",
    "sklearn.ensemble.RandomForestClassifier",
    "sklearn.ensemble.GradientBoostingClassifier",
    "sklearn.ensemble.AdaBoostClassifier",
    "sklearn.tree.DecisionTreeClassifier",
    "sklearn.linear_model.LogisticRegression",
    "sklearn.neighbors.KNeighborsClassifier",
    "sklearn.naive_bayes.GaussianNB",
    "sklearn.naive_bayes.MultinomialNB",
    "sklearn.svm.LinearSVC",
]
REGRESSORS = [
    "sklearn.ensemble.HistGradientBoostingRegressor",
    "sklearn.ensemble.ExtraTreesRegressor",
    "sklearn.linear_model.Ridge",
]
FEW_TREES = dict.fromkeys(["RandomForest", "ExtraTrees", "Gradient", "Ada"], "n_estimators")


def few(path: str) -> dict[str, int]:
    name = path.rpartition(".")[2]
    return next(({p: 10} for start, p in FEW_TREES.items() if name.startswith(start)), {})


@pytest.mark.parametrize(("target", "path"), [("late", p) for p in CLASSIFIERS] + [("minutes", p) for p in REGRESSORS])
def test_estimators_take_missing_values_and_new_categories_and_are_stored(target: str, path: str, tmp_path) -> None:
    done = fit(target, estimator=path, params=few(path), seed=3)
    assert done.task == ("classification" if target == "late" else "regression")
    assert done.classes == ((0, 1) if target == "late" else None)
    later = flights(40, seed=9)
    later.loc[:5, "carrier"] = "ZZ"
    later.loc[6:9, "distance"] = np.nan  # never missing in training
    rows = done.schema.check(later)
    predicted = done.model.predict(rows)
    assert predicted.shape == (40,)
    assert done.model.score(done.schema.check(flights()), flights()[target]) > 0.6
    dump_model(done.model, tmp_path / "m.skops")
    np.testing.assert_array_equal(load_model(tmp_path / "m.skops").predict(rows), predicted)
    with pytest.raises(PredictionError, match="distance"):
        done.schema.check(later.drop(columns="distance"))
    again = fit(target, estimator=path, params=few(path), seed=3)
    np.testing.assert_array_equal(again.model.predict(rows), predicted)


def test_seed_reaches_the_estimator_unless_set() -> None:
    path = "sklearn.ensemble.RandomForestClassifier"
    assert fit(estimator=path, params={"n_estimators": 3}, seed=3).params["random_state"] == 3
    assert fit(estimator=path, params={"n_estimators": 3, "random_state": 5}, seed=3).params["random_state"] == 5
    rows = flights(60, seed=4)
    one, two = (fit(estimator=path, params={"n_estimators": 3}, seed=s) for s in (1, 2))
    assert (one.model.predict_proba(one.schema.check(rows)) != two.model.predict_proba(two.schema.check(rows))).any()


def test_preprocessing_learns_from_training_rows_only() -> None:
    done = fit(estimator="sklearn.linear_model.LogisticRegression")
    scale = done.model[0].named_transformers_["number"][-1]
    assert scale.mean_[0] == pytest.approx(flights()["distance"].mean())


def test_histogram_boosting_gets_categories_up_to_its_bins() -> None:
    frame = flights()
    frame["gate"] = [f"g{i % 30}" for i in range(len(frame))]
    schema = infer_schema(frame, DATA)
    make = "sklearn.ensemble.HistGradientBoostingClassifier"
    assert pipeline(schema, build_estimator(make, {}, [], 1))[-1].categorical_features == [0, 1]
    assert pipeline(schema, build_estimator(make, {"max_bins": 20}, [], 1))[-1].categorical_features == [0]


class TestMistakes:
    @pytest.mark.parametrize(
        ("train_config", "error", "match"),
        [
            ({"estimator": "sklearn.ensemble.RandomForrestClassifier"}, TrainingError, "RandomForestClassifier"),
            ({"estimator": "sklearn.linear.LogisticRegression"}, TrainingError, r"linear_model\.LogisticRegression"),
            ({"estimator": "sklearn.preprocessing.StandardScaler"}, TrainingError, "cannot predict"),
            ({"estimator": "os.path.join"}, CodeNotAllowed, "allowed_imports"),
            (
                {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_itr": 5}},
                TrainingError,
                "no parameter 'max_itr'(?s:.*)did you mean 'max_iter'(?s:.*)It takes: C, ",
            ),
            (
                {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": "many"}},
                TrainingError,
                "'max_iter' parameter of LogisticRegression must be",
            ),
            ({"estimator": "sklearn.multiclass.OneVsRestClassifier"}, TrainingError, "missing 1 required"),
            ({"estimator": "sklearn.linear_model.Ridge", "task": "classification"}, TrainingError, "is for regression"),
        ],
    )
    def test_is_named(self, train_config: dict, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            fit(**train_config)

    def test_numbers_with_a_classifier_and_labels_with_a_regressor(self) -> None:
        with pytest.raises(TrainingError, match="is a classifier, but the target 'minutes' holds numbers like"):
            fit("minutes", estimator="sklearn.linear_model.LogisticRegression")
        frame = flights().assign(late=lambda f: f["late"].map({0: "no", 1: "yes"}))
        with pytest.raises(TrainingError, match="is a regressor, but the target 'late' holds labels like"):
            fit(frame=frame, estimator="sklearn.linear_model.Ridge")

    @pytest.mark.parametrize(("change", "match"), [(np.nan, "missing in 5 of 300"), (None, "missing in 5")])
    def test_missing_labels(self, change: object, match: str) -> None:
        frame = flights().astype({"late": object})
        frame.loc[:4, "late"] = change
        with pytest.raises(TargetError, match=match):
            fit(frame=frame, estimator="sklearn.ensemble.RandomForestClassifier")

    def test_single_class(self) -> None:
        with pytest.raises(TargetError, match="only the value 1 in 300"):
            fit(frame=flights().assign(late=1), estimator="sklearn.ensemble.RandomForestClassifier")

    def test_infinite_feature(self) -> None:
        with pytest.raises(TrainingError, match="distance is infinite in 1 rows"):
            fit(frame=flights().assign(distance=[np.inf] + [1.0, 2.0] * 149 + [1.0]),
                estimator="sklearn.linear_model.LogisticRegression")  # fmt: skip


def test_text_boolean_and_whole_float_labels() -> None:
    path = "sklearn.linear_model.LogisticRegression"
    text = fit(frame=flights().assign(late=lambda f: f["late"].map({0: "no", 1: "yes"})), estimator=path)
    assert (text.classes, text.schema.positive) == (("no", "yes"), "yes")
    assert fit(frame=flights().assign(late=lambda f: f["late"] == 1), estimator=path).classes == (False, True)
    whole = fit(frame=flights().assign(late=lambda f: f["late"].astype(float)), estimator=path)
    assert whole.classes == (0, 1)


def test_log_says_what_was_left_out_and_warnings_are_kept() -> None:
    said: list[str] = []
    done = fit(estimator="sklearn.linear_model.LogisticRegression", params={"max_iter": 1}, said=said)
    assert "Training on 300 rows and 4 columns, seed 7" in said
    assert "Not a feature: flight (names the row (data.id))" in said
    assert done.warnings
    assert done.warnings[0].startswith("ConvergenceWarning")


class TestSearch:
    config: ClassVar[dict] = {"estimator": "sklearn.tree.DecisionTreeClassifier", "seed": 5}

    def test_equals_scikit_learns_search(self) -> None:
        space = {"max_depth": [1, 2, 3, 5], "min_samples_leaf": [1, 5, 20]}
        said: list[str] = []
        done = fit(**self.config, search={"n_iter": 5, "metric": "roc_auc", "space": space}, said=said)
        frame, schema = flights(), done.schema
        peer = RandomizedSearchCV(
            pipeline(schema, build_estimator(self.config["estimator"], {}, [], 5)),
            {f"model__{k}": v for k, v in space.items()},
            n_iter=5,
            scoring="roc_auc",
            cv=StratifiedKFold(3, shuffle=True, random_state=5),
            random_state=5,
        ).fit(schema.check(frame), frame["late"])
        assert done.trials is not None
        assert [{f"model__{k}": v for k, v in t["params"].items()} for t in done.trials] == peer.cv_results_["params"]
        np.testing.assert_allclose([t["mean"] for t in done.trials], peer.cv_results_["mean_test_score"])
        np.testing.assert_allclose([t["std"] for t in done.trials], peer.cv_results_["std_test_score"])
        assert {f"model__{k}": done.params[k] for k in space} == peer.best_params_
        assert sum(s.startswith("Trial ") for s in said) == 5
        assert any(s.startswith("Trial 5/5: ") for s in said)

    def test_grid_and_lower_is_better(self) -> None:
        done = fit(**self.config, search={"strategy": "grid", "space": {"max_depth": [1, 4]}}, metrics=["log_loss"])
        assert done.trials is not None
        assert all(t["mean"] > 0 for t in done.trials)
        best = min(done.trials, key=lambda t: t["mean"])
        assert done.params["max_depth"] == best["params"]["max_depth"]

    def test_regression_and_decision_functions(self) -> None:
        ridge = {"estimator": "sklearn.linear_model.Ridge", "search": {"space": {"alpha": [0.1, 10.0]}}}
        assert fit("minutes", **ridge).trials[0]["mean"] > 0.9
        svc = {"estimator": "sklearn.svm.LinearSVC", "search": {"space": {"C": [0.1]}, "metric": "roc_auc"}}
        frame = flights().assign(late=lambda f: f["late"].map({0: "yes", 1: "no"}))  # positive sorts last, is not late
        assert fit(frame=frame, **svc).trials[0]["mean"] > 0.8

    def test_a_failing_trial_is_recorded_and_all_failing_is_an_error(self) -> None:
        done = fit(**self.config, search={"strategy": "grid", "space": {"max_depth": [-1, 2]}})
        assert [t["error"] is None for t in done.trials] == [False, True]
        assert "max_depth" in done.trials[0]["error"]
        with pytest.raises(TrainingError, match="none of the 1 trials"):
            fit(**self.config, search={"space": {"max_depth": [-1]}})

    @pytest.mark.parametrize(
        ("search", "error", "match"),
        [
            ({"space": {"depth": [1]}}, TrainingError, "train.search.space: .*no parameter 'depth'"),
            ({"space": {"max_depth": [1]}, "metric": "roc"}, EvaluationError, "no metric 'roc'"),
            ({"space": {"max_depth": [1]}, "metric": "r2"}, EvaluationError, "is for regression"),
            ({"space": {"max_depth": [1]}, "cv": 200}, TrainingError, "train.search.cv is 200, but class"),
            ({"space": {"max_depth": []}}, TrainingError, "empty list"),
        ],
    )
    def test_mistakes_are_named(self, search: dict, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            fit(**self.config, search=search)


HOUSE_CODE = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.impute import SimpleImputer

def good(X, y, *, seed, C=1.0):
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(C=C, random_state=seed)).fit(
        X[["distance", "stops"]], y)

class Own(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self
    def predict(self, X):
        return np.repeat(self.classes_[0], len(X))

def own(X, y, *, seed): return Own().fit(X, y)
def nothing(X, y, *, seed): return None
def fails(X, y, *, seed): raise KeyError("colour")
def no_seed(X, y): return LogisticRegression().fit(X, y)
def unfitted(X, y, *, seed): return LogisticRegression()
"""


class TestCallable:
    @pytest.fixture(autouse=True)
    def _code(self, tmp_path, monkeypatch) -> None:
        (tmp_path / "house_training.py").write_text(HOUSE_CODE)
        monkeypatch.syspath_prepend(tmp_path)

    def fit(self, name: str, **kwargs: object) -> Trained:
        return fit(callable=f"house_training:{name}", allowed_imports=["house_training"], **kwargs)

    def test_model_reads_what_it_was_fitted_on(self) -> None:
        done = self.fit("good", params={"C": 0.5}, seed=9)
        assert done.schema.names == ["distance", "stops"]
        assert ("carrier", "not read by the model") in done.schema.excluded
        assert done.model[-1].C == 0.5
        assert done.model[-1].random_state == 9
        assert done.model.predict(done.schema.check(flights(10))).shape == (10,)

    @pytest.mark.parametrize(
        ("name", "error", "match"),
        [
            ("own", UntrustedArtifact, "house_training.Own"),
            ("nothing", TrainingError, "is of type NoneType, which cannot predict"),
            ("fails", TrainingError, "house_training:fails failed: KeyError: 'colour'"),
            ("no_seed", TrainingError, "has no parameter 'seed'"),
            ("unfitted", TrainingError, "NotFittedError"),
        ],
    )
    def test_mistakes_are_named(self, name: str, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            self.fit(name)

    def test_trusted_types_admit_own_classes(self) -> None:
        frame = flights()
        schema = infer_schema(frame, DATA)
        done = train(
            frame,
            frame["late"],
            schema,
            Train.model_validate({"callable": "house_training:own"}),
            allowed_imports=["house_training"],
            trusted_types=["house_training.Own"],
        )
        assert done.classes == (0, 1)

    def test_needs_the_allow_list(self) -> None:
        with pytest.raises(CodeNotAllowed):
            fit(callable="house_training:good")


SCRIPT = """
import argparse, os, sys
from pathlib import Path
import pandas as pd, skops.io
from sklearn.tree import DecisionTreeClassifier
p = argparse.ArgumentParser()
p.add_argument("--data"); p.add_argument("--out"); p.add_argument("--seed", type=int)
a = p.parse_args()
frame = pd.read_parquet(a.data)
print("rows", len(frame), "columns", sorted(frame))
print("secret", os.environ.get("AIRFLOW__CORE__FERNET_KEY"), file=sys.stderr)
model = DecisionTreeClassifier(random_state=a.seed).fit(frame[["stops", "distance"]], frame["late"])
skops.io.dump(model, Path(a.out) / "model.skops")
"""


class TestCommand:
    def test_script_unchanged(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "hidden")
        (tmp_path / "my train.py").write_text(SCRIPT)
        said: list[str] = []
        command = f"python '{tmp_path}/my train.py' --data {{train}} --out {{model_dir}} --seed {{seed}}"
        done = fit(command=command, seed=4, said=said)
        assert done.schema.names == ["stops", "distance"]
        assert done.model.random_state == 4
        assert "rows 300 columns ['carrier', 'distance', 'late', 'night', 'stops']" in said
        assert "secret None" in said
        relative = fit(command="python 'my train.py' --data {train} --out {model_dir} --seed {seed}", cwd=tmp_path)
        assert relative.classes == (0, 1)

    @pytest.mark.parametrize(
        ("command", "match"),
        [
            ("python -c 'print(1); import sys; sys.exit(3)' {model_dir}", "exit code 3; its last lines:\n    1"),
            ("python -c 'import os; os.kill(os.getpid(), 9)' {model_dir}", "signal SIGKILL"),
            ("python -c 'print(7)' {model_dir}", "left no model.skops.*found: nothing"),
            ("no-such-program {model_dir}", "'no-such-program' is not found"),
            ("python train.py {holdout} {model_dir}", "there is no {holdout}"),
            ("python train.py {train}", "does not use {model_dir}"),
            ("python 'train.py {model_dir}", "not a command line"),
        ],
    )
    def test_mistakes_are_named(self, command: str, match: str) -> None:
        with pytest.raises(TrainingError, match=match):
            fit(command=command)

    def test_no_shell(self, tmp_path) -> None:
        with pytest.raises(TrainingError, match="left no model"):
            fit(command=f"echo hi > {tmp_path}/made {{model_dir}}")
        assert not (tmp_path / "made").exists()

    def test_a_pickle_is_refused(self, tmp_path) -> None:
        code = 'import sys,pickle; pickle.dump([], open(sys.argv[1]+"/model.skops","wb"))'
        with pytest.raises(UntrustedArtifact):
            fit(command=f"python -c '{code}' {{model_dir}}")

    def test_timeout_stops_the_children_too(self, tmp_path) -> None:
        pid_file = tmp_path / "pid"
        code = (
            "import subprocess,sys,time; "
            f'p=subprocess.Popen([sys.executable,"-c","import time; time.sleep(60)"]); '
            f'open("{pid_file}","w").write(str(p.pid)); time.sleep(60)'
        )
        with pytest.raises(TrainingError, match="longer than 3 s"):
            fit(command=f"{sys.executable} -c '{code}' {{model_dir}}", timeout=3)
        child = int(pid_file.read_text())
        for _ in range(100):
            if not _alive(child):
                break
            threading.Event().wait(0.1)
        assert not _alive(child)

    def test_a_child_that_holds_the_output_does_not_block(self) -> None:
        code = 'import subprocess,sys; subprocess.Popen([sys.executable,"-c","import time; time.sleep(900)"])'
        with pytest.raises(TrainingError, match="left no model"):
            fit(command=f"{sys.executable} -c '{code}' {{model_dir}}")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
