from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from airflow_mlops.config.models import Data, Evaluate, Features, Train
from airflow_mlops.exceptions import CodeNotAllowed, RegistryError, StoreUnavailable, TrainingError
from airflow_mlops.ml import rerun as module
from airflow_mlops.ml import training
from airflow_mlops.ml.candidate import train_candidate
from airflow_mlops.ml.candidate_verdict import evaluate_candidate
from airflow_mlops.ml.data import read_batches, take_snapshot
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.rerun import Rerun, rerun
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.registry import Registry, Version
from airflow_mlops.registry.artifacts import dump_model
from airflow_mlops.registry.lineage import config_hash
from airflow_mlops.store import LocalStore, layout, trash

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "determinism.md"
FEATURES = """import pandas as pd
def build(frame):
    return frame.assign(both=frame["heat"] * frame["size"])
"""
FIT = """from sklearn.ensemble import RandomForestClassifier
def fit(X, y, *, seed, trees=5):
    return RandomForestClassifier(trees, random_state=seed).fit(X[["size", "heat"]], y)
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder from which modules can be imported, forgotten afterwards."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("rerun_"):
            del sys.modules[name]


def parts(rows: int = 240) -> pd.DataFrame:
    random = np.random.default_rng(5)
    frame = pd.DataFrame({"part": range(rows), "size": random.normal(size=rows), "heat": random.normal(size=rows)})
    frame["kind"] = random.choice(["a", "b", "c"], rows)
    frame["line"] = [f"L{i % 12}" for i in range(rows)]
    frame["made"] = pd.date_range("2024-01-01", periods=rows, freq="h")
    noise = random.normal(size=rows)
    frame["bad"] = (frame["size"] + frame["heat"] + (frame["kind"] == "a") + noise > 0.5).astype(int)
    return frame


def register(
    store: LocalStore,
    tmp_path: Path,
    train: dict[str, Any],
    *,
    data: dict[str, Any] | None = None,
    features: str | None = None,
    metrics: tuple[str, ...] = ("roc_auc", "log_loss"),
    gate: str = "roc_auc",
    evaluated: bool = True,
    **context: Any,
) -> Version:
    """Train and evaluate as the DAG's tasks do."""
    parts().to_csv(tmp_path / "parts.csv", index=False)
    config = Data.model_validate(
        {"source": str(tmp_path / "parts.csv"), "target": "bad", "id": "part", "exclude": ["made", "line"]}
        | (data or {})
    )
    batches = read_batches(config, files=Files(root=str(tmp_path)), window=None)
    snapshot = take_snapshot(store, "parts", batches, data=config, window=None)
    common: dict[str, Any] = {"allowed_imports": ["rerun_code"], "trusted_types": (), "log": lambda *_: None}
    record = train_candidate(
        store,
        snapshot.to_ref(),
        data=config,
        train_config=Train.model_validate(train),
        features=Features(callable=features) if features else None,
        metrics=metrics,
        task=None,
        **common,
        **context,
    )
    registry = Registry(store, "parts")
    version = registry.register(record, op_id=f"r{len(registry.versions())}")
    if not evaluated:
        return version
    evaluate = Evaluate.model_validate({"metrics": list(metrics), "gates": [{"metric": gate, "at_least": 0.1}]})
    note = evaluate_candidate(store, version.record, registry.champion(), data=config, config=evaluate, **common)
    return registry.annotate(version.number, "evaluation", note, op_id=f"e{version.number}")


def again(store: LocalStore, version: Version, **kwargs: Any) -> Rerun:
    return rerun(store, version, allowed_imports=["rerun_code"], **kwargs)


def answers(result: Rerun) -> dict[str, str]:
    return {f.what: f.answer for f in result.findings}


def changed(version: Version, change: Callable[[dict[str, Any]], None]) -> Version:
    record = json.loads(json.dumps(version.record))
    change(record)
    return Version(version.pipeline, version.number, version.key, record, dict(version.notes))


ALL_SAME = dict.fromkeys(("data", "config", "code", "env", "metrics", "predictions", "model"), "same")
BOOSTING = {"estimator": "sklearn.ensemble.HistGradientBoostingClassifier", "params": {"max_iter": 5}}
LOGISTIC = {"estimator": "sklearn.linear_model.LogisticRegression", "seed": 3}
SPACE = {"max_depth": [2, 3, 5, None], "min_samples_leaf": [1, 5]}
SEARCH = {
    "estimator": "sklearn.tree.DecisionTreeClassifier",
    "search": {"strategy": "random", "n_iter": 3, "cv": 2, "space": SPACE},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with one version; copy it."""
    folder = tmp_path_factory.mktemp("trained")
    register(LocalStore(folder / "store"), folder, LOGISTIC)
    return folder / "store"


@pytest.fixture
def version(store: LocalStore, trained: Path) -> Version:
    """The version that ``trained`` made, in a store of its own."""
    shutil.copytree(trained, store.path)
    return Registry(store, "parts").get(1)


@pytest.mark.parametrize(
    ("train", "data"),
    [
        (BOOSTING, {}),
        (LOGISTIC, {"split": {"by": "time", "test": 0.25}, "timestamp": "made", "exclude": ["line"]}),
        (SEARCH, {"split": {"by": "group", "column": "line", "test": 0.3}, "exclude": ["made"]}),
        (LOGISTIC, {"private": ["heat"]}),
        ({"estimator": "sklearn.linear_model.Ridge"}, {"target": "size", "exclude": ["made", "line", "bad"]}),
    ],
    ids=["boosting", "time", "search and group", "private", "regression"],
)
def test_the_past_is_made_again_to_the_last_bit(
    store: LocalStore, tmp_path: Path, train: dict[str, Any], data: dict[str, Any]
) -> None:
    metrics = ("r2", "rmse") if "Ridge" in train["estimator"] else ("log_loss", "roc_auc")
    version = register(store, tmp_path, train, data=data, metrics=metrics, gate=metrics[0])
    before = sorted(store.list(""))
    said: list[str] = []
    result = again(store, version, log=lambda text, *values: said.append(text % values if values else text))
    assert answers(result) == ALL_SAME, result
    assert result.verified
    assert set(result.metrics) == set(metrics)
    assert {m["delta"] for m in result.metrics.values()} == {0.0}
    assert sorted(store.list("")) == before
    assert any("rows for training" in line for line in said)
    assert json.loads(json.dumps(result.to_dict()))["verified"] is True


def test_a_search_is_steered_by_the_metric_that_steered_it(store: LocalStore, tmp_path: Path) -> None:
    # By their names log_loss would be first.
    version = register(store, tmp_path, SEARCH, metrics=("roc_auc", "log_loss"))
    said: list[str] = []
    again(store, version, log=lambda text, *values: said.append(text % values if values else text))
    assert any("combinations for roc_auc" in line for line in said)


def test_code_of_ones_own(store: LocalStore, tmp_path: Path, code: Path) -> None:
    (code / "rerun_code.py").write_text(FEATURES + FIT)
    train = {"callable": "rerun_code:fit", "params": {"trees": 4}}
    version = register(store, tmp_path, train, features="rerun_code:build", gate="accuracy")
    result = again(store, version)
    assert answers(result) == ALL_SAME, result
    (found,) = (f for f in result.findings if f.what == "code")
    assert "the git commit is unknown" in found.details[0]
    # Labels were kept for the gate, and are compared.
    assert result.verified
    assert rerun(store, version, allowed_imports=[]).failed is not None

    (code / "rerun_code.py").write_text(FEATURES + FIT.replace("seed)", "seed + 1)"))
    del sys.modules["rerun_code"]
    importlib.invalidate_caches()
    result = again(store, version)
    assert answers(result) == ALL_SAME | dict.fromkeys(("code", "metrics", "predictions", "model"), "different")
    assert not result.verified
    assert any("rerun_code.py has changed: sha256" in d for f in result.findings for d in f.details)
    assert any(m["delta"] != 0 for m in result.metrics.values())

    (code / "rerun_code.py").unlink()
    del sys.modules["rerun_code"]
    result = again(store, version)
    assert answers(result) == {"data": "same", "config": "same", "code": "different", "env": "same"}
    assert result.failed is not None
    assert "rerun_code" in result.failed
    assert result.hint is not None
    assert not result.verified


def test_a_command_runs_where_its_script_was(
    store: LocalStore, tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(
        command: str, X: pd.DataFrame, y: pd.Series, seed: int, out: Path, log: Any, timeout: Any, cwd: Path | None
    ) -> Path:
        if not (cwd or Path()).joinpath("train.py").is_file():
            raise TrainingError(f"there is no train.py in {cwd}")
        dump_model(LogisticRegression(random_state=seed).fit(X[["size", "heat"]], y), out / "model.skops")
        return out / "model.skops"

    monkeypatch.setattr(training, "run_command", script)
    (code / "train.py").write_text("train()")
    train = {"command": "python ./train.py {train} {model_dir} {seed}"}
    version = register(store, tmp_path, train, folder=code)
    with pytest.raises(CodeNotAllowed, match=r"train\.command is not allowed here"):
        again(store, version)
    assert answers(again(store, version, allow_commands=True)) == ALL_SAME
    moved = code.rename(tmp_path / "elsewhere")
    gone = again(store, version, allow_commands=True)
    assert gone.answer("code") == "different"
    assert gone.failed == f"there is no train.py in {code}"
    assert answers(again(store, version, allow_commands=True, folder=moved)) == ALL_SAME


def test_data_that_retention_deleted(store: LocalStore, version: Version) -> None:
    digest = version.record["snapshot"]["snapshot"]
    part = Snapshot.load(store, digest).files[0].digest
    store.delete(layout.blob(part))
    lost = again(store, version)
    assert answers(lost) == {"data": "different", "config": "same", "code": "same", "env": "same"}
    assert lost.findings[0].summary == "not in the store"
    assert part in lost.findings[0].details[0]
    note = {"what": "snapshot", "digest": digest, "window": None, "older_than": "30 days"}
    version = Registry(store, "parts").annotate(1, "retention", note, op_id="x")
    released = again(store, version)
    assert released.findings[0].summary == "deleted by retention"
    assert released.failed == "data: deleted by retention"
    assert not released.verified


def test_what_is_in_the_trash_is_read_and_stays_there(store: LocalStore, version: Version) -> None:
    key = layout.blob(Snapshot.load(store, version.record["snapshot"]).files[0].digest)
    store.move(key, trash.removal(key, datetime.now(UTC)))
    before = sorted(store.list(""))
    assert again(store, version).verified
    assert sorted(store.list("")) == before


def test_data_that_was_damaged(store: LocalStore, version: Version) -> None:
    part = Snapshot.load(store, version.record["snapshot"]).files[0].digest
    store.put(layout.blob(part), b"something else")
    result = again(store, version)
    assert result.findings[0].summary == "damaged"
    assert result.failed == "data: damaged"


def test_another_fingerprint_than_recorded(store: LocalStore, version: Version) -> None:
    result = again(store, changed(version, lambda r: r["snapshot"].update(fingerprint="f" * 64)))
    assert result.findings[0].summary == "another fingerprint"
    assert result.failed is not None


def hashed(record: dict[str, Any]) -> None:
    record["config_hash"] = config_hash(record["config"])


@pytest.mark.parametrize(
    ("change", "summary"),
    [
        (lambda r: r["config"]["train"].update(seed=99), "not what was hashed"),
        (lambda r: r.update(seed=99), "another seed"),
        (lambda r: [r["config"]["train"].update(more=1), hashed(r)], "this release cannot read it"),
    ],
)
def test_a_configuration_that_was_changed(
    store: LocalStore, version: Version, change: Callable[[dict[str, Any]], None], summary: str
) -> None:
    result = again(store, changed(version, change))
    assert (result.answer("config"), result.findings[1].summary) == ("different", summary)
    assert result.failed == f"config: {summary}"


def test_another_environment_alone_is_no_difference(store: LocalStore, version: Version) -> None:
    older = changed(version, lambda r: r["model"]["environment"]["packages"].update({"scikit-learn": "1.0.0"}))
    result = again(store, older)
    (env,) = (f for f in result.findings if f.what == "env")
    assert env.answer == "different"
    assert env.summary.startswith("scikit-learn 1.0.0 → ")
    assert result.verified


def test_another_number_of_threads_is_named_and_is_no_difference(store: LocalStore, version: Version) -> None:
    result = again(store, changed(version, lambda r: r["model"]["environment"]["threads"].update({"openmp": 96})))
    (env,) = (f for f in result.findings if f.what == "env")
    assert env.answer == "same"
    assert [detail for detail in env.details if detail.startswith("threads of openmp 96 → ")]
    assert result.verified


def test_other_metrics_are_told_with_their_difference(
    store: LocalStore, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.train_candidate

    def other(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return real(*args, **kwargs | {"train_config": Train.model_validate(LOGISTIC | {"params": {"C": 0.01}})})

    monkeypatch.setattr(module, "train_candidate", other)
    result = again(store, version)
    assert answers(result) == ALL_SAME | dict.fromkeys(("metrics", "predictions", "model"), "different")
    assert not result.verified
    loss = result.metrics["log_loss"]
    assert loss["delta"] == loss["now"] - loss["recorded"] != 0


@pytest.mark.parametrize(("by", "hinted"), [(1e-12, True), (1e-3, False)])
def test_other_last_digits_hint_at_the_number_of_threads(
    store: LocalStore, version: Version, monkeypatch: pytest.MonkeyPatch, by: float, hinted: bool
) -> None:
    real = module.compare_metrics
    monkeypatch.setattr(module, "compare_metrics", lambda then, now: real({k: v + by for k, v in then.items()}, now))
    (told,) = (f for f in again(store, version).findings if f.what == "metrics")
    assert told.answer == "different"
    assert any("the number of threads is not recorded" in line for line in told.details) is hinted


def test_without_an_evaluation_only_the_same_bytes_verify(store: LocalStore, tmp_path: Path) -> None:
    version = register(store, tmp_path, LOGISTIC, evaluated=False)
    result = again(store, version)
    assert answers(result) == ALL_SAME | dict.fromkeys(("metrics", "predictions"), "unknown")
    assert result.verified
    result = again(store, changed(version, lambda r: r["model"].update(digest="0" * 64)))
    assert result.answer("model") == "different"
    assert not result.verified


def test_an_imported_model_cannot_be_trained_again(store: LocalStore) -> None:
    version = Registry(store, "parts").register({"model": {"digest": "0" * 64}}, op_id="r")
    with pytest.raises(RegistryError, match="its record has no snapshot, config, config_hash, seed, task"):
        again(store, version)


def test_a_store_that_does_not_answer_is_no_difference(
    store: LocalStore, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:

    def silent(*_: Any) -> None:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(store, "get_file", silent)
    with pytest.raises(StoreUnavailable):
        again(store, version)


# --- what the page on determinism says -----------------------------------------------------------

SAMPLE = [
    "sklearn.ensemble.ExtraTreesRegressor",
    "sklearn.ensemble.GradientBoostingClassifier",
    "sklearn.ensemble.AdaBoostClassifier",
    "sklearn.ensemble.RandomForestClassifier",
    "sklearn.linear_model.ElasticNet",
    "sklearn.linear_model.LogisticRegression",
    "sklearn.linear_model.Ridge",
    "sklearn.linear_model.SGDClassifier",
    "sklearn.naive_bayes.GaussianNB",
    "sklearn.neighbors.KNeighborsClassifier",
    "sklearn.svm.LinearSVC",
    "sklearn.tree.DecisionTreeClassifier",
]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mlops_determinism", ROOT / "benchmarks" / "determinism.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_said_to_be_deterministic_is(benchmark: ModuleType) -> None:
    always = PAGE.read_text().split("\n## ")[1]
    assert always.startswith("Same bytes, whatever the number of threads")
    assert [name for name in SAMPLE if f"`{name}`" not in always] == []
    running = [
        subprocess.Popen(
            [sys.executable, str(benchmark.__file__), "--fit", *SAMPLE, "--rows", "300", "--numbers", "6"],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": threads, "PYTHONHASHSEED": seed, "PYTHONWARNINGS": "ignore"},
        )
        for threads, seed in (("1", "1"), ("2", "2"))
    ]
    found = [[json.loads(line) for line in process.communicate()[0].splitlines()] for process in running]
    assert found[0] == found[1]
    assert [run["name"] for run in found[0] if "model" in run] == SAMPLE


def test_every_estimator_is_on_the_page(benchmark: ModuleType) -> None:
    page = PAGE.read_text()
    assert [name for name in benchmark.estimators() if f"- `{name}`" not in page] == []


def test_estimators_are_grouped_by_what_differs(benchmark: ModuleType) -> None:
    def run(model: str, predictions: str) -> dict[str, str]:
        return {"name": "x", "model": model, "predictions": predictions}

    one = run("a", "p")
    assert benchmark.group([one, one, one]) == "always"
    assert benchmark.group([one, one, run("b", "p")]) == "bytes"
    assert benchmark.group([one, one, run("b", "q")]) == "threads"
    assert benchmark.group([one, run("b", "p"), run("c", "p")]) == "predictions"
    assert benchmark.group([one, run("b", "q"), one]) == "never"
    assert benchmark.group([one, one, {"name": "x", "why": "no"}]) == "left out"
