"""A fleet run here: every key judged, nothing kept unless told, the champions of the store compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.cli.run import MOST_KEYS, key_table
from airflow_mlops.exceptions import ConfigError, TrainingError
from airflow_mlops.factory.levels import LEVELS
from airflow_mlops.factory.levels.fleet import fleet_of
from airflow_mlops.local_fleet import STEPS as FLEET_STEPS
from airflow_mlops.local_steps import STEPS
from airflow_mlops.pipeline import Pipeline
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore

FLEET = """
pipeline: routes
level: 1
data: {source: trips.parquet, target: delay, id: trip}
train: {estimator: sklearn.linear_model.Ridge}
evaluate:
  metrics: [r2]
  gates: [{metric: r2, at_least: 0.5}, {metric: r2, versus: champion, not_worse_by: 0.05}]
retrain: {schedule: "@weekly"}
fleet: {key: route, parent: line, shard_size: 3}
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Callable[..., Pipeline]:
    """``pipeline(text)``: six routes of 200 trips, one of noise, one that is never late and one of ten trips."""
    rng = np.random.default_rng(3)
    sizes = {f"r{n}": 200 for n in range(6)} | {"noise": 200, "flat": 200, "tiny": 10}
    frame = pd.DataFrame({"route": np.repeat([*sizes], [*sizes.values()])})
    frame["line"] = np.where(frame["route"].str.startswith("r"), "A", "B")
    frame["trip"], frame["hour"] = range(len(frame)), rng.normal(size=len(frame))
    skill = frame["route"].map({"noise": 0.0}).fillna(3.0)
    frame["delay"] = skill * frame["hour"] + rng.normal(size=len(frame))
    frame.loc[frame["route"] == "flat", "delay"] = 1.0
    frame.sample(frac=1, random_state=0).to_parquet(tmp_path / "trips.parquet")

    def make(text: str = FLEET) -> Pipeline:
        (tmp_path / "routes.yaml").write_text(text)
        return Pipeline.from_yaml(tmp_path / "routes.yaml", data_root=tmp_path)

    return make


def test_every_step_of_a_fleets_training_can_be_run_here() -> None:
    for level in LEVELS.values():
        train = next(spec for spec in fleet_of(level) if spec.suffix == "train")
        assert {step.name for step in train.steps} <= set(STEPS | FLEET_STEPS)


def test_every_key_is_judged_and_nothing_is_kept(pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    said: list[str] = []
    store = LocalStore(tmp_path / "store")
    with pipeline().run_fleet(store=store, say=said.append) as result:
        rows = {row["key"]: row for row in result.rows}
        assert {key: row["status"] for key, row in rows.items()} == {
            "*": "no_baseline", "A/*": "no_baseline", "B/*": "rejected", "noise": "rejected", "flat": "failed",
            "tiny": "fallback", **{f"r{n}": "no_baseline" for n in range(6)},
        }  # fmt: skip
    assert "nothing to learn" in rows["flat"]["reason"]
    assert rows["tiny"]["served_by"] == "B/*"
    assert rows["r0"]["metrics"]["r2"] > 0.7
    assert (result.counts["no_baseline"], result.registered) == (8, False)
    assert "Gate report" in result.reports
    assert [*store.list("")] == []
    told = " ".join(" ".join(said).split())
    assert "shard 1 of 4: " in told
    assert "8 versions would become the champions of their keys" in told
    assert said[-1] == f"verdict: {result.sentence}; nothing was registered"
    assert max(map(len, said[:-1])) <= 80


def test_versions_are_registered_and_later_ones_compared_with_champions(
    pipeline: Callable[..., Pipeline], tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "store")
    registry = Registry(store, "routes")
    first = pipeline().run_fleet(store=store, register=True, say=lambda line: None)
    assert first.registered
    assert registry.get(1, "r0").notes["gates"][-1]["verdict"] == "no_baseline"
    assert registry.champions() == {}
    registry.promote_many({"r0": (1, None)}, op_id="a" * 64, reason="first", by=None, window=None)

    before = {key: store.get(key) for key in store.list("")}
    again = pipeline(FLEET + "# changed\n").run_fleet(store=store, keys=["r0", "tiny"], say=lambda line: None)
    assert {row["key"]: row["status"] for row in again.rows} == {"r0": "passed", "tiny": "fallback"}
    assert again.rows[0]["champion"] == 1
    assert again.counts["not_due"] == 7
    assert {key: store.get(key) for key in store.list("")} == before

    with pytest.raises(
        TrainingError, match="1 of the 1 keys to train are neither in the data nor have a model: nowhere"
    ):
        pipeline().run_fleet(keys=["nowhere"], say=lambda line: None)


def test_one_model_and_a_fleet_are_run_each_in_its_own_way(pipeline: Callable[..., Pipeline]) -> None:
    with pytest.raises(ConfigError, match="is a fleet") as fleet:
        pipeline().run(say=lambda line: None)
    assert "run_fleet" in str(fleet.value.hint)
    with pytest.raises(ConfigError, match="is no fleet"):
        pipeline(FLEET.rpartition("fleet:")[0]).run_fleet(say=lambda line: None)


def test_what_needs_somebody_is_told_first() -> None:
    rows = [{"key": f"k{n:02}", "status": "inconclusive", "reason": "few rows"} for n in range(MOST_KEYS)]
    rows += [
        {"key": "good", "status": "passed", "reason": ""},
        {"key": "zz", "status": "failed", "reason": "one class"},
    ]
    lines = key_table(rows)
    first = next(n for n, line in enumerate(lines) if "one class" in line)
    assert first < next(n for n, line in enumerate(lines) if "k00" in line)
    assert not any("good" in line for line in lines)
    assert lines[-1] == "… and 1 more; --reports DIR keeps a page with them"
    assert key_table([{"key": "good", "status": "passed", "reason": ""}]) == []
