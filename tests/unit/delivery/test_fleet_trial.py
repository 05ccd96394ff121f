"""A fleet in a project's CI: some of its keys are trained, compared, predicted and told by their names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.config.settings import Settings
from airflow_mlops.delivery import report, stages
from airflow_mlops.delivery.fleet_compare import _fewer
from airflow_mlops.delivery.record import Asked, Check
from airflow_mlops.delivery.report import as_json, junit, markdown
from airflow_mlops.delivery.stages import STAGES, check
from airflow_mlops.exceptions import TrainingError
from tests.unit.delivery.small_project import Project
from tests.unit.delivery.test_stages import here

ROUTES = """\
pipeline: routes
level: 2
extends: base.yaml
data: {source: trips.parquet, target: late, positive: 1, id: trip, private: [fare], split: {by: random, test: 0.4}}
features: {callable: "signals.trips:build"}
train: {estimator: sklearn.linear_model.LogisticRegression}
evaluate:
  metrics: [roc_auc, accuracy]
  gates: [{metric: roc_auc, at_least: 0.7}, {metric: roc_auc, versus: champion, not_worse_by: 0.05}]
retrain: {schedule: "@weekly"}
fleet: {key: route, parent: line, shard_size: 2}
"""
TRIPS = "def build(frame):\n    return frame.assign(early=frame['hour'].clip(upper=0))\n"
CODE = "signals/trips.py"
EVERY = 3000
"""Rows of a sample that has all of them, and so all keys."""
Make = Callable[..., Project]


@pytest.fixture
def fleet(project: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Call it with further files for a project whose one pipeline is a fleet of ten routes, one of them small."""
    monkeypatch.setattr(stages, "run_task", here)
    monkeypatch.setattr(stages, "STAGES", {name: STAGES[name] for name in ("lint", "train", "gates", "contract")})

    def make(**files: str | None) -> Project:
        made = project(**{"pipelines/churn.yaml": None, "pipelines/routes.yaml": ROUTES, CODE: TRIPS} | files)
        rng = np.random.default_rng(3)
        sizes = {f"r{n}": 300 for n in range(7)} | {"short": 100, "noise": 300, "tiny": 10}
        frame = pd.DataFrame({"route": np.repeat([*sizes], [*sizes.values()])})
        frame["line"] = np.where(frame["route"] == "noise", "B", "A")
        frame["trip"], frame["hour"] = range(len(frame)), rng.normal(size=len(frame))
        frame["rain"], frame["fare"] = rng.choice(["no", "much"], len(frame)), rng.normal(size=len(frame))
        skill = frame["route"].map({"noise": 0.0}).fillna(2.0)
        frame["late"] = (skill * frame["hour"] + rng.normal(size=len(frame)) > 0.3).astype(int)
        (made.folder / "data").mkdir(exist_ok=True)
        frame.sample(frac=1, random_state=0).to_parquet(made.folder / "data" / "trips.parquet")
        return made

    return make


def checked(made: Project, sample: int = EVERY, since: str | None = None) -> Check:
    return check(
        Asked(made.folder, Settings(allowed_imports=()), str(made.folder / "data"), since=since, sample=sample)
    )


def told(found: Check, name: str) -> str:
    return "\n".join(next(stage for stage in found.stages if stage.name == name).told)


def test_some_keys_are_trained_compared_and_predicted(fleet: Make) -> None:
    made = fleet()
    made.commit(**{CODE: TRIPS.replace("clip(upper=0)", "clip(upper=0) ** 2")})
    found = checked(made, 1500, since="HEAD^")
    assert found.failed is None, found.failed
    (trial,) = found.trials
    assert trial.after is not None
    assert trial.comparison is not None, trial.not_compared
    keys = {row["key"]: row for row in trial.after["fleet"]["keys"]}
    own = [key for key, row in keys.items() if "metrics" in row and not key.endswith("*")]
    # Keys that the sample has rows for, and one that falls to its group.
    assert 2 <= len(own) < 8
    assert keys["tiny"] == {
        "key": "tiny", "status": "fallback", "reason": "10 rows are too few for a model of its own: A/* serves",
        "served_by": "A/*",
    }  # fmt: skip
    assert trial.after["rows"]["train"] == sum(keys[key]["train_rows"] for key in own)
    assert trial.comparison["rows"] == trial.after["rows"]["holdout"]
    assert [key["key"] for key in trial.comparison["keys"]] == sorted(own)
    assert [m["name"] for m in trial.comparison["metrics"]] == ["roc_auc", "accuracy"]
    assert f"over {len(own)} keys" in told(found, "gates")
    contract = "routes: 200 rows: training and prediction see the same features; A/* predicts tiny"
    assert told(found, "contract") == contract
    page = markdown(found)
    assert f"those of {len(own)} keys together" in page
    assert all(f"| `{key}` |" in page for key in (*own, "A/*"))
    assert "| `tiny` | 0 | – | – | fallback: 10 rows are too few" in page
    json.dumps(as_json(found), allow_nan=False)
    assert 'failures="1"' not in junit(found.stages)


def test_the_same_keys_each_time_and_nothing_changed(fleet: Make) -> None:
    made = fleet()
    made.commit(**{"pipelines/routes.yaml": ROUTES.replace("@weekly", "@daily")})
    trial, again = (checked(made, 1500, since="HEAD^").trials[0] for _ in range(2))
    assert trial.comparison is not None, trial.not_compared
    assert {m["verdict"] for m in trial.comparison["metrics"]} == {"the same"}
    assert [gate["verdict"] for gate in trial.gates] == ["passed", "passed"]
    assert (again.after or {})["fleet"]["keys"] == (trial.after or {})["fleet"]["keys"]


def test_a_key_that_gets_worse_is_named(fleet: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fleet()
    # One route loses what it is known by.
    worse = "    frame = frame.assign(hour=frame['hour'].where(frame['route'] != 'r3', 0.0))\n    return"
    made.commit(**{CODE: TRIPS.replace("    return", worse)})
    found = checked(made, since="HEAD^")
    assert found.failed is not None
    assert found.failed.name == "gates"
    monkeypatch.setattr(report, "_MOST_LINES", 3)
    shown = [line for line in markdown(found).splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in shown] == ["B/*", "noise", "r3"]
    assert "And 10 more; `airflow mlops ci --output json` has all of them." in markdown(found)
    assert "1 of 9 keys are worse than they may be: r3: roc_auc 0.4" in told(found, "gates")
    # Of the limits one key is too few to say that it is the change.
    limits = "passed: 1 of 9 keys missed no limit before the change and miss one now, 0 the other way around (p = 0.5)"
    assert f"{limits}: r3: roc_auc 0.4" in told(found, "gates")


def test_keys_that_miss_their_limits_since_the_change_fail_it(fleet: Make) -> None:
    limits = ROUTES.replace(", {metric: roc_auc, versus: champion, not_worse_by: 0.05}", "")
    made = fleet(**{"pipelines/routes.yaml": limits})
    made.commit(**{CODE: "def build(frame):\n    return frame[['rain', 'trip', 'route']]\n"})
    found = checked(made, since="HEAD^")
    assert found.failed is not None
    # One that has too few late trips in its holdout is neither.
    assert "inconclusive: 0 of 9 keys pass, 1 inconclusive; rejected: " in told(found, "gates")
    assert "rejected: 7 of 9 keys missed no limit before the change and miss one now" in told(found, "gates")
    assert "(p = 0.0078): r0: roc_auc " in told(found, "gates")


def test_a_key_that_cannot_be_trained_any_more_is_named(fleet: Make) -> None:
    near = ROUTES.replace("linear_model.LogisticRegression", "neighbors.KNeighborsClassifier, params: {n_neighbors: 9}")
    made = fleet(**{"pipelines/routes.yaml": near})
    made.commit(**{"pipelines/routes.yaml": near.replace("n_neighbors: 9", "n_neighbors: 90")})
    found = checked(made, since="HEAD^")
    assert found.failed is not None
    assert found.failed.name == "train"
    first, key = told(found, "train").splitlines()[:2]
    assert first == "routes: 1 key cannot be trained any more, and could be before the change"
    # What the error says may quote a private column.
    assert key.startswith("short: ValueError at ")


def test_features_that_depend_on_the_rows_beside_name_their_keys(fleet: Make) -> None:
    found = checked(fleet(**{CODE: "def build(frame):\n    return frame.assign(r=frame['hour'].rank())\n"}))
    assert found.failed is not None
    assert found.failed.name == "contract"
    assert "routes: the feature r is another in prediction than in training: " in told(found, "contract")
    assert told(found, "contract").endswith("of noise, r0, r1, r2, r3 and 4 more")


def test_features_that_cannot_be_made_of_one_key(fleet: Make) -> None:
    body = "    assert frame['route'].nunique() > 1, 'alone'\n    return frame\n"
    found = checked(fleet(**{CODE: f"def build(frame):\n{body}"}))
    assert found.failed is not None
    assert "what the models need for a prediction cannot be made (noise): the feature code" in told(found, "contract")


def test_a_fleet_of_other_keys_is_not_compared(fleet: Make) -> None:
    made = fleet()
    made.commit(**{"pipelines/routes.yaml": ROUTES.replace("key: route", "key: [line, route]")})
    (trial,) = checked(made, since="HEAD^").trials
    assert trial.not_compared == "it had a model for each route, and has a model for each line, route"
    made.commit(**{"pipelines/routes.yaml": ROUTES[: ROUTES.index("fleet:")].replace("level: 2", "level: 1")})
    (trial,) = checked(made, since="HEAD^").trials
    assert trial.not_compared == "it had a model for each line, route, and has one model"


def test_a_fleet_of_which_nothing_can_be_tried_says_so(fleet: Make) -> None:
    with pytest.raises(TrainingError, match=r"none of 10 keys has the 400 rows of fleet\.min_rows") as refused:
        checked(fleet(**{"pipelines/routes.yaml": ROUTES.replace("shard_size: 2", "min_rows: 400")}))
    assert "data in which some keys have rows enough" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("deploy: {rollout: [shadow, full]}\n", "`fleet` takes no steps before `full` in `deploy.rollout`"),
        ("experiment: {space: {C: [0.1, 1.0]}}\n", "`fleet` takes no `experiment`"),
    ],
)
def test_what_a_fleet_does_not_have_at_level_2_is_lints(change: str, said: str, fleet: Make) -> None:
    found = checked(fleet(**{"pipelines/routes.yaml": ROUTES + change}))
    assert found.failed is not None
    assert found.failed.name == "lint"
    assert said in told(found, "lint")


def test_lint_does_not_speak_of_a_rollout_that_a_fleet_does_not_have(
    fleet: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "STAGES", {"lint": STAGES["lint"]})
    assert told(checked(fleet()), "lint") == "1 pipeline, 6 Python files"


def test_keys_that_no_limit_decided_about_do_not_make_up_for_lost_ones() -> None:
    def side(*statuses: str) -> dict[str, Any]:
        return {f"k{i}": {"key": f"k{i}", "status": s, "reason": s, "metrics": {}} for i, s in enumerate(statuses)}

    lost = (side(*["passed"] * 6, *["inconclusive"] * 6), side(*["rejected"] * 6, *["passed"] * 6))
    assert [found["verdict"] for found in _fewer(*lost)] == ["rejected"]
    both = (side(*["passed"] * 6, *["rejected"] * 6), side(*["rejected"] * 6, *["passed"] * 6))
    assert [found["verdict"] for found in _fewer(*both)] == ["passed"]
