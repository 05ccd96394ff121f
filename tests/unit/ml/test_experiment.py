"""Experiments: the plan is seeded, a trial is recorded once, the best goes on, and the holdout chooses nothing."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_mlops.config.models import Data, Evaluate, Experiment, Features, Train
from airflow_mlops.exceptions import CodeNotAllowed, ConfigError, CorruptObject, EvaluationError, TrainingError
from airflow_mlops.ml import experiment as ex
from airflow_mlops.ml.experiment_plan import amount, candidates_of, draw_trials, overridden, rungs_of
from airflow_mlops.ml.experiment_trials import why_not
from airflow_mlops.store import LocalStore, layout

CODE = """
calls = []

def curve(*, x, seed, iterations=1):
    calls.append((x, seed, iterations))
    if x == 13:
        raise RuntimeError("unlucky")
    return (x - 3) ** 2 + 10 / iterations

def text(*, x):
    return f"{x}"

def wider(frame):
    return frame.assign(product=frame["a"] * frame["b"])
"""


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the user's."""
    (tmp_path / "own_sim.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    import own_sim  # type: ignore[import-not-found]

    yield own_sim
    del sys.modules["own_sim"]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def experiment(**keys: Any) -> Experiment:
    return Experiment.model_validate(keys)


def of_curve(**keys: Any) -> Experiment:
    space = {"x": [0, 1, 2, 3, 4, 5, 13]}
    return experiment(
        **{"callable": "own_sim:curve", "direction": "minimize", "strategy": "all", "space": space} | keys
    )


def run_all(
    store: LocalStore, config: Experiment, **more: Any
) -> tuple[Any, dict[str, Any], dict[str, Any], list[Any]]:
    """Every trial on every rung; records, plan, result and table."""
    records, plan = ex.begin(store, "p", config, rungs=config.rung_count, **{"allowed_imports": ["own_sim"]} | more)
    runner = ex.runner_of(store, plan, data=more.get("data"), allowed_imports=["own_sim"])
    for rung in plan["rungs"]:
        for number in ex.promoted(records, plan, rung["number"]):
            ex.run(records, plan, number, rung["number"], runner)
    result, rows = ex.finish(records, plan)
    return records, plan, result, rows


# --- the plan --------------------------------------------------------------------------------------

values = st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True)
spaces = st.dictionaries(st.sampled_from(["a", "b", "c"]), values, min_size=1, max_size=3)


@given(space_1=spaces, space_2=spaces, n=st.integers(1, 60), seed=st.integers(0, 2**32 - 1))
def test_trials_are_drawn_without_repetition_evenly_and_again_the_same(
    space_1: dict[str, list[int]], space_2: dict[str, list[int]], n: int, seed: int
) -> None:
    config = experiment(
        n_trials=n,
        seed=seed,
        candidates=[
            {"name": "one", "estimator": "x.One", "space": space_1},
            {"name": "two", "estimator": "x.Two", "space": space_2},
        ],
    )
    candidates = candidates_of(config, Train(estimator="x.Own"), None)
    trials = draw_trials(config, candidates)
    assert trials == draw_trials(config, candidates)
    assert [t.number for t in trials] == list(range(1, len(trials) + 1))
    sizes = [math.prod(map(len, s.values())) for s in (space_1, space_2)]
    assert len(trials) == min(n, sum(sizes))
    keys = [(t.candidate, tuple(t.params.items())) for t in trials]
    assert len(set(keys)) == len(keys)
    for trial in trials:
        space = {"one": space_1, "two": space_2}[trial.candidate]
        assert trial.params.keys() == space.keys()
        assert all(v in space[k] for k, v in trial.params.items())
    counts = [sum(t.candidate == name for t in trials) for name in ("one", "two")]
    fewer, other = sorted(range(2), key=lambda i: counts[i])
    assert counts[other] - counts[fewer] <= 1 or counts[fewer] == sizes[fewer]


@given(space=spaces)
def test_all_is_every_combination_once(space: dict[str, list[int]]) -> None:
    config = experiment(strategy="all", space=space)
    trials = draw_trials(config, candidates_of(config, Train(estimator="x.Own"), None))
    found = {tuple(t.params[k] for k in space) for t in trials}
    assert found == set(itertools.product(*space.values()))
    assert len(trials) == len(found)


def test_another_seed_draws_others() -> None:
    space = {"a": list(range(100))}
    drawn = [
        [t.params for t in draw_trials(c, candidates_of(c, Train(estimator="x.Y"), None))]
        for c in (experiment(space=space, seed=1), experiment(space=space, seed=2))
    ]
    assert drawn[0] != drawn[1]


def test_a_space_too_large_to_count_is_drawn_from() -> None:
    config = experiment(space={f"p{i}": list(range(1000)) for i in range(30)}, n_trials=5)
    trials = draw_trials(config, candidates_of(config, Train(estimator="x.Y"), None))
    assert len({tuple(t.params.values()) for t in trials}) == 5


@given(n=st.integers(1, 1000), factor=st.integers(2, 6), rungs=st.integers(1, 6) | st.none())
def test_rungs_shrink_to_the_full_resource(n: int, factor: int, rungs: int | None) -> None:
    halving = {"factor": factor, "resource": "n", "max_resource": 10_000, **({"rungs": rungs} if rungs else {})}
    config = experiment(strategy="halving", n_trials=n, space={"a": [1]}, halving=halving)
    count = config.rung_count
    made = rungs_of(config, n, count)
    assert len(made) == (rungs or count)
    assert made[0].trials == n
    if rungs is None and n < factor**6:
        assert made[-1].trials < factor
    asked = [amount(vars(r), 10_000) for r in made]
    assert asked == sorted(asked)
    assert asked[-1] == 10_000
    for before, after in itertools.pairwise(made):
        assert after.trials == max(1, before.trials // factor) or after.trials == max(
            1, n // factor ** (after.number - 1)
        )
        assert after.share == pytest.approx(before.share * factor)


def test_rows_of_a_rung_are_limited_by_what_there_is() -> None:
    config = experiment(strategy="halving", n_trials=27, space={"a": [1]})
    asked = [[amount(vars(r), rows) for r in rungs_of(config, 27, 4)] for rows in (2_700, 400, 30)]
    assert asked == [[100, 300, 900, 2_700], [100, 100, 134, 400], [30, 30, 30, 30]]


def test_candidates_stand_on_the_pipelines_own_model() -> None:
    train = Train(
        estimator="sklearn.tree.DecisionTreeClassifier", params={"max_depth": 3, "min_samples_leaf": 5}, seed=9
    )
    config = experiment(
        space={"max_depth": [2, 4]},
        candidates=[
            {"params": {"max_depth": 9}},
            {"window": "30d", "features": "own_sim:wider"},
            {"estimator": "sklearn.naive_bayes.GaussianNB"},
            {"name": "wide", "estimator": "sklearn.naive_bayes.GaussianNB", "space": {"var_smoothing": [1e-9]}},
        ],
    )
    own, window, bayes, wide = candidates_of(config, train, Features(callable="own_sim:base"))
    assert [c.name for c in (own, window, bayes, wide)] == [
        "DecisionTreeClassifier",
        "DecisionTreeClassifier 2",
        "GaussianNB",
        "wide",
    ]
    assert own.train
    assert own.train.params == {"max_depth": 9, "min_samples_leaf": 5}
    assert own.space == {"max_depth": [2, 4]}
    assert own.features == "own_sim:base"
    assert window.features == "own_sim:wider"
    assert window.train
    assert window.train.window == "30d"
    assert bayes.train
    assert bayes.train.params == {}
    assert bayes.space == {}
    assert bayes.train.seed == 9
    assert wide.space == {"var_smoothing": [1e-9]}


def test_values_of_a_space_can_be_set() -> None:
    config = overridden(of_curve(), {"x": [1, 2]})
    assert config.space == {"x": [1, 2]}
    with pytest.raises(ConfigError, match="no space of this experiment has 'y'"):
        overridden(of_curve(), {"y": [1]})
    with pytest.raises(ConfigError, match="no value"):
        overridden(of_curve(), {"x": []})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "nothing to try"),
        ({"callable": "a:b", "space": {"x": [1]}}, "needs a `direction`"),
        ({"space": {"x": [1]}, "direction": "minimize"}, "a metric knows its own"),
        ({"space": {"x": []}}, "at least 1 item"),
        ({"callable": "a:b", "space": {"x": [1]}, "direction": "minimize", "strategy": "halving"}, "name a parameter"),
        ({"space": {"x": [1]}, "strategy": "halving", "halving": {"resource": "n"}}, "needs `max_resource`"),
        ({"space": {"x": [1]}, "strategy": "all", "n_trials": 3}, "every combination"),
        ({"candidates": [{"name": "a", "estimator": "x.A"}, {"name": "a", "estimator": "x.B"}]}, "same `name`"),
        ({"space": {"x": [1]}, "strategy": "halving", "early_stop": {"patience": 2}}, "stops trials by itself"),
        ({"space": {"x": [1]}, "halving": {}}, "belongs to `strategy: halving`"),
    ],
)
def test_what_does_not_fit_together_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        experiment(**keys)


def test_all_of_too_many_is_refused() -> None:
    config = experiment(strategy="all", space={"a": list(range(40)), "b": list(range(40))})
    with pytest.raises(ConfigError, match="1,600 trials"):
        draw_trials(config, candidates_of(config, Train(estimator="x.Y"), None))


# --- trials of a callable --------------------------------------------------------------------------


def test_the_best_number_wins_and_a_failed_trial_stops_nothing(store: LocalStore, sim: Any) -> None:
    records, _plan, result, rows = run_all(store, of_curve())
    assert result["winner"]["params"] == {"x": 3}
    assert result["winner"]["score"] == 10
    assert (result["finished"], result["failed"], result["not_run"]) == (6, 1, 0)
    failed = rows[-1]
    assert failed["params"] == {"x": 13}
    assert failed["error"] == "RuntimeError: unlucky"
    assert failed["score"] is None
    assert {seed for _, seed, _ in sim.calls} == {7}
    record = records.trial(1, result["winner"]["number"])
    assert record["seed"] == 7
    assert record["seconds"] >= 0
    assert record["code"]
    assert "6 trials finished, 1 failed" in result["sentence"]


def test_the_direction_counts(store: LocalStore, sim: Any) -> None:
    result = run_all(store, of_curve(direction="maximize"))[2]
    assert result["winner"]["params"] == {"x": 0}


def test_what_succeeded_is_not_run_again_and_what_failed_is(store: LocalStore, sim: Any) -> None:
    first = run_all(store, of_curve())
    done = len(sim.calls)
    second = run_all(store, of_curve())
    assert first[1]["experiment"] == second[1]["experiment"]
    assert [x for x, _, _ in sim.calls[done:]] == [13]
    assert second[2]["winner"] == first[2]["winner"]


def test_another_plan_or_run_is_another_experiment(store: LocalStore, sim: Any) -> None:
    ids = {
        ex.begin(store, "p", c, rungs=1, parts=parts, allowed_imports=["own_sim"])[0].experiment
        for c, parts in ((of_curve(), ()), (of_curve(seed=8), ()), (of_curve(), ("run 1",)), (of_curve(), ("run 2",)))
    }
    assert len(ids) == 4


def test_other_code_is_another_trial(store: LocalStore, sim: Any, tmp_path: Path) -> None:
    run_all(store, of_curve())
    done = len(sim.calls)
    (tmp_path / "own_sim.py").write_text(CODE + "\n# changed\n")
    run_all(store, of_curve())
    assert len(sim.calls) == 2 * done


def test_halving_gives_the_best_more(store: LocalStore, sim: Any) -> None:
    halving = {"resource": "iterations", "max_resource": 90, "factor": 3}
    space = {"x": list(range(-4, 5))}
    records, plan, result, _ = run_all(store, of_curve(strategy="halving", n_trials=9, halving=halving, space=space))
    spent = [[n for _, _, n in sim.calls].count(k) for k in (10, 30, 90)]
    assert spent == [9, 3, 1]
    assert result["winner"]["params"] == {"x": 3, "iterations": 90}
    assert result["winner"]["rung"] == 3
    assert {plan["trials"][n - 1]["params"]["x"] for n in ex.promoted(records, plan, 2)} == {2, 3, 4}


def test_records_of_other_code_choose_nothing_on_a_higher_rung(store: LocalStore, sim: Any, tmp_path: Path) -> None:
    halving = {"resource": "iterations", "max_resource": 3, "factor": 3}
    config = of_curve(strategy="halving", n_trials=3, halving=halving, space={"x": [3, 4, 5]})
    # By the first code the largest x goes on, with a score that the second code does not reach.
    first = "\n\ndef curve(*, x, seed, iterations=1):\n    return -100 * x\n"
    path = tmp_path / "own_sim.py"
    path.write_text(CODE + first)
    importlib.reload(sim)
    assert run_all(store, config)[2]["winner"]["params"]["x"] == 5
    path.write_text(CODE)
    importlib.reload(sim)
    records, plan, result, rows = run_all(store, config)
    assert any(r["score"] == -500 for r in records.trials() if r["rung"] == 2)
    assert result["winner"]["params"] == {"x": 3, "iterations": 3}
    assert [(row["params"]["x"], row["rung"]) for row in rows] == [(3, 2), (4, 1), (5, 1)]
    assert ex.promoted(records, plan, 2) == [result["winner"]["number"]]


def test_where_the_last_rung_fails_the_one_before_decides(store: LocalStore, sim: Any) -> None:
    halving = {"resource": "iterations", "max_resource": 3, "factor": 3}
    config = of_curve(strategy="halving", n_trials=3, halving=halving, space={"x": [3, 4, 5]})
    records, plan = ex.begin(store, "p", config, rungs=2, allowed_imports=["own_sim"])
    runner = ex.runner_of(store, plan, allowed_imports=["own_sim"])
    for number in (1, 2, 3):
        ex.run(records, plan, number, 1, runner)
    result, _rows = ex.finish(records, plan)
    assert result["winner"]["rung"] == 1
    assert "rung 1 of 2 decided" in result["sentence"]


def test_a_budget_and_an_early_stop_begin_no_more(store: LocalStore, sim: Any) -> None:
    result = run_all(store, of_curve(space={"x": [3, 4, 5, 6, 7]}, early_stop={"patience": 2}))[2]
    assert (result["finished"], result["not_run"]) == (3, 2)
    assert "early_stop" in result["sentence"]
    plan = {"budget": "10s", "early_stop": None, "direction": "minimize"}
    assert why_not(plan, [{"seconds": 6.0}]) is None
    assert "12 s are spent" in str(why_not(plan, [{"seconds": 6.0}, {"seconds": 6.0}]))


def test_small_gains_do_not_count(store: LocalStore) -> None:
    plan = {"budget": None, "early_stop": {"patience": 2, "min_gain": 0.5}, "direction": "maximize"}
    ended = [
        {"score": s, "error": None, "at": str(i), "number": i, "seconds": 1.0} for i, s in enumerate([1.0, 1.2, 1.4])
    ]
    assert why_not(plan, ended) is not None
    assert why_not(plan, [*ended[:2], {**ended[2], "score": 1.6}]) is None


def test_no_score_at_all_is_an_error(store: LocalStore, sim: Any) -> None:
    with pytest.raises(TrainingError, match="none of the 1 trials has a score; the first: RuntimeError: unlucky"):
        run_all(store, of_curve(space={"x": [13]}))


def test_what_is_no_number_fails_its_trial(store: LocalStore, sim: Any) -> None:
    with pytest.raises(TrainingError, match="returned 'nan'"):
        run_all(store, of_curve(callable="own_sim:text", space={"x": ["nan"]}))


def test_bad_code_or_parameters_are_told_before_any_trial(store: LocalStore, sim: Any) -> None:
    with pytest.raises(ConfigError, match="has no parameter y"):
        run_all(store, of_curve(space={"y": [1]}))
    with pytest.raises(CodeNotAllowed):
        run_all(store, of_curve(), allowed_imports=[])
    assert not sim.calls


def test_a_damaged_record_is_told(store: LocalStore, sim: Any) -> None:
    records = run_all(store, of_curve())[0]
    store.put(layout.trial("p", records.experiment, 1, 2), b"{")
    with pytest.raises(CorruptObject, match="no JSON"):
        records.trials()


# --- trials of models ------------------------------------------------------------------------------

ROWS = 600


@pytest.fixture
def data() -> Data:
    return Data(source="x.csv", target="y", id="id", timestamp="t")


@pytest.fixture
def snapshot(store: LocalStore, data: Data) -> dict[str, Any]:
    return snapshot_of(store, rows())


def rows(n: int = ROWS) -> pd.DataFrame:
    draw = np.random.default_rng(3)
    frame = pd.DataFrame({"id": np.arange(n), "a": draw.normal(size=n), "b": draw.normal(size=n)})
    frame["t"] = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(frame["id"], unit="h")
    frame["y"] = (frame["a"] * frame["b"] + 0.3 * draw.normal(size=n) > 0).astype(int)
    return frame


def snapshot_of(store: LocalStore, frame: pd.DataFrame) -> dict[str, Any]:
    import pyarrow as pa

    from airflow_mlops.ml.snapshot import write_snapshots

    table = pa.Table.from_pandas(frame, preserve_index=False)
    batches = [(batch,) for batch in table.to_batches()]
    (made,) = write_snapshots(store, "p", batches, table.schema, window=None, sources=[{"uri": "x.csv"}])
    return made.to_ref()


TREE = {"estimator": "sklearn.tree.DecisionTreeClassifier"}


def test_models_are_scored_on_rows_that_neither_fit_nor_decide(
    store: LocalStore, data: Data, snapshot: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.ml import experiment_models
    from airflow_mlops.ml.splitting import split_mask

    seen: list[set[int]] = []
    original = experiment_models.train

    def spying(frame: pd.DataFrame, *args: Any, **kwargs: Any) -> Any:
        seen.append(set(frame["id"]))
        return original(frame, *args, **kwargs)

    monkeypatch.setattr(experiment_models, "train", spying)
    config = experiment(strategy="all", space={"max_depth": [1, 4]}, metric="roc_auc")
    records, plan, result, _table = run_all(
        store, config, data=data, snapshot=snapshot, train=Train(**TREE), evaluate=Evaluate()
    )
    held = set(np.flatnonzero(split_mask(rows(), data, 7)))
    assert seen[0] == seen[1]
    assert not seen[0] & held
    record = records.trial(1, 1)
    assert record["rows"]["fit"] == len(seen[0])
    assert len(seen[0]) + record["rows"]["validation"] + len(held) == ROWS
    assert record["snapshot"]["fingerprint"] == snapshot["fingerprint"]
    assert result["winner"]["train"]["params"] == {"max_depth": 4}
    assert plan["direction"] == "maximize"


def test_features_and_windows_are_candidates(store: LocalStore, data: Data, snapshot: dict[str, Any], sim: Any) -> None:
    config = experiment(
        strategy="all",
        metric="roc_auc",
        candidates=[
            {"name": "plain", "params": {"C": 1.0}},
            {"name": "product", "features": "own_sim:wider"},
            {"name": "recent", "window": "4d"},
        ],
    )
    train = Train(estimator="sklearn.linear_model.LogisticRegression")
    records, _plan, result, table = run_all(store, config, data=data, snapshot=snapshot, train=train)
    assert result["winner"]["candidate"] == "product"
    assert result["winner"]["features"] == "own_sim:wider"
    scores = {row["candidate"]: row["score"] for row in table}
    assert scores["product"] > 0.9 > scores["plain"]
    fitted = {r["candidate"]: r["rows"] for r in records.trials()}
    assert fitted["recent"]["fit"] < 97
    assert fitted["recent"]["validation"] == fitted["plain"]["validation"]


@pytest.mark.parametrize("strategy", ["all", "halving"])
def test_a_candidate_whose_code_is_gone_fails_alone(
    strategy: str, store: LocalStore, data: Data, snapshot: dict[str, Any], sim: Any, tmp_path: Path
) -> None:
    config = experiment(
        strategy=strategy,
        candidates=[{"name": "product", "features": "own_sim:wider"}, {"name": "plain"}],
        **({"halving": {"min_resource": 20}, "n_trials": 2} if strategy == "halving" else {}),
    )
    more: dict[str, Any] = {"data": data, "snapshot": snapshot, "train": Train(**TREE)}
    records, plan = ex.begin(store, "p", config, rungs=config.rung_count, allowed_imports=["own_sim"], **more)
    # Where the task runs, the module is another one than where the plan was made.
    (tmp_path / "own_sim.py").write_text("raise OSError('no such device')\n")
    del sys.modules["own_sim"]
    runner = ex.runner_of(store, plan, data=data, allowed_imports=["own_sim"])
    for trial in plan["trials"]:
        ex.run(records, plan, trial["number"], 1, runner)
    said = {r["candidate"]: r["error"] for r in records.trials()}
    assert "importing own_sim failed: OSError: no such device" in said["product"]
    assert said["plain"] is None
    sys.modules["own_sim"] = sim  # mended
    (tmp_path / "own_sim.py").write_text(CODE)
    again = ex.runner_of(store, plan, data=data, allowed_imports=["own_sim"])
    for trial in plan["trials"]:
        ex.run(records, plan, trial["number"], 1, again)
    assert [r["error"] for r in records.trials()] == [None, None]


def test_rows_that_cannot_be_drawn_fail_a_trial(
    store: LocalStore, data: Data, snapshot: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.ml import experiment_models

    def broken(*_: Any) -> None:
        raise ValueError("no such rows")

    config = experiment(strategy="halving", n_trials=2, space={"max_depth": [1, 2]}, halving={"min_resource": 20})
    records, plan = ex.begin(store, "p", config, rungs=1, data=data, snapshot=snapshot, train=Train(**TREE))
    monkeypatch.setattr(experiment_models, "split_mask", broken)
    assert plan["rungs"][0]["resource"] == "rows"
    record = ex.run(records, plan, 1, 1, ex.runner_of(store, plan, data=data))
    assert record == records.trial(1, 1)
    assert "no such rows" in record["error"]
    assert (record["score"], record["resource"]) == (None, None)


def test_rungs_of_rows_are_nested(
    store: LocalStore, data: Data, snapshot: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.ml import experiment_models

    seen: list[set[int]] = []
    original = experiment_models.train

    def spying(frame: pd.DataFrame, *args: Any, **kwargs: Any) -> Any:
        seen.append(set(frame["id"]))
        return original(frame, *args, **kwargs)

    monkeypatch.setattr(experiment_models, "train", spying)
    config = experiment(
        strategy="halving", n_trials=9, space={"max_depth": list(range(1, 10))}, halving={"min_resource": 20}
    )
    run_all(store, config, data=data, snapshot=snapshot, train=Train(**TREE))
    small, middle, large = seen[0], seen[9], seen[12]
    assert len(seen) == 13
    assert small < middle < large
    assert len(large) == pytest.approx(9 * len(small), abs=9)


def test_lower_is_better_for_losses(store: LocalStore, data: Data, snapshot: dict[str, Any]) -> None:
    config = experiment(strategy="all", space={"max_depth": [1, 4]}, metric="log_loss")
    _, plan, result, table = run_all(store, config, data=data, snapshot=snapshot, train=Train(**TREE))
    assert plan["direction"] == "minimize"
    assert result["winner"]["score"] == min(row["score"] for row in table)


def test_what_no_trial_could_do_is_told_first(store: LocalStore, data: Data, snapshot: dict[str, Any]) -> None:
    def begin(train: dict[str, Any] | None = None, **keys: Any) -> None:
        ex.begin(store, "p", experiment(**keys), rungs=1, data=data, snapshot=snapshot, train=Train(**train or TREE))

    with pytest.raises(TrainingError, match="has no parameter 'max_dept'"):
        begin(space={"max_dept": [1]})
    with pytest.raises(TrainingError, match=r"there is no sklearn\.tree.DecisionTreeClasifier"):
        begin(candidates=[{"estimator": "sklearn.tree.DecisionTreeClasifier"}])
    with pytest.raises(EvaluationError, match="no metric 'roc_acu'"):
        begin(space={"max_depth": [1]}, metric="roc_acu")
    with pytest.raises(ConfigError, match="cannot be compared"):
        begin(candidates=[{}, {"estimator": "sklearn.linear_model.LinearRegression"}])
    with pytest.raises(ConfigError, match="takes no parameters"):
        begin(train={"command": "python train.py"}, space={"max_depth": [1]})


def test_private_values_stay_out_of_errors(store: LocalStore, snapshot: dict[str, Any]) -> None:
    data = Data(source="x.csv", target="y", id="id", private=["a"])
    config = experiment(strategy="all", space={"max_depth": [4, -5]})
    records, *_ = run_all(store, config, data=data, snapshot=snapshot, train=Train(**TREE))
    failed = records.trial(1, 2)
    assert "left out" in failed["error"]
    assert "-5" not in failed["error"]


def test_the_same_trials_give_the_same_scores(
    store: LocalStore, tmp_path: Path, data: Data, snapshot: dict[str, Any]
) -> None:
    config = experiment(n_trials=4, space={"max_depth": [1, 2, 3, 4, 5], "min_samples_leaf": [1, 5]})
    other = LocalStore(tmp_path / "other")
    scores = [
        [
            (r["params"], r["score"])
            for r in run_all(s, config, data=data, snapshot=snap, train=Train(**TREE))[0].trials()
        ]
        for s, snap in ((store, snapshot), (other, snapshot_of(other, rows())))
    ]
    assert scores[0] == scores[1]
