"""All models of a fleet's training, trained again from its records: the same bytes, or which are not, and why."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.cli.rerun import render_fleet, rerun
from airflow_mlops.exceptions import RegistryError
from airflow_mlops.ml.fleet import run_again
from airflow_mlops.ml.fleet.run_again import find_training, rerun_fleet
from airflow_mlops.ml.fleet.training import Settings, train_chunk
from airflow_mlops.registry.fleet_runs import fleet_runs
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore
from tests.unit.operators.test_fleet_runs import Fleet, rows


@pytest.fixture
def trained(lake: Path, tmp_path: Path, execute: Callable[..., Any]) -> LocalStore:
    """A training of all keys, one of two of them, and a rehearsal."""
    rows().to_parquet(lake / "routes.parquet")
    fleet = Fleet(execute)
    fleet.run("all")
    fleet.run("some", keys=["r01", "B/*"])
    shards = fleet.partition("tried")
    for item in shards:
        fleet.train(item, "tried")
    fleet.decide(shards, "tried", promote=False)
    return LocalStore(tmp_path / "store")


def answers(result: run_again.FleetRerun) -> dict[str, str]:
    return {finding.what: finding.answer for finding in result.findings}


def test_all_models_have_the_same_bytes(trained: LocalStore) -> None:
    before = [*trained.list("")]
    said: list[str] = []
    training = find_training(trained, "routes", "all")
    # Twelve routes, two lines and all rows; `flat` failed, `tiny` had too few rows.
    result = rerun_fleet(trained, "routes", training, processes=1, log=lambda text, *v: said.append(text % v))
    assert result.sentence == "15 of 15 models have the same bytes"
    assert result.verified
    assert answers(result) == dict.fromkeys(("data", "config", "prepare", "code", "env"), "same")
    assert [*trained.list("")] == before
    assert said[-1] == "15 of 15 models trained again"
    page = render_fleet(result)
    assert "prepare ✓ same bytes" in page
    assert page.endswith("15 of 15 models have the same bytes.\nThe models of the run all were made again.")


def test_a_training_of_some_keys_and_the_newest_one(trained: LocalStore) -> None:
    some = rerun_fleet(trained, "routes", find_training(trained, "routes"), processes=1)
    # What all share was learned from a sample of all keys, and is made again from it.
    assert (some.run, some.sentence) == ("some", "2 of 2 models have the same bytes")
    assert (some.verified, answers(some)["prepare"]) == (True, "same")
    assert find_training(trained, "routes", "tried").rehearsal
    with pytest.raises(RegistryError, match="no training with the run id 'none'") as refused:
        find_training(trained, "routes", "none")
    assert "tried" in str(refused.value.hint)
    with pytest.raises(RegistryError, match="no training of all keys of other"):
        find_training(trained, "other")


def test_models_that_are_not_the_same_are_told_with_their_reasons(
    trained: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_mlops.ml.fleet.shard.train_chunk", other_models)
    result = rerun_fleet(trained, "routes", find_training(trained, "routes", "all"), processes=1)
    assert [(model.key, model.what) for model in result.others] == [
        ("r03", "other bytes"), ("r04", "different"), ("r05", "not trained again"),
    ]  # fmt: skip
    assert not result.verified
    told = result.sentence
    assert told == (
        "12 of 15 models have the same bytes, 1 has other bytes and the same metrics, 1 has different metrics, "
        "1 has not been trained again"
    )
    page = render_fleet(result, most=2).splitlines()
    assert [line.split()[0] for line in page if line.strip().startswith("r0")] == ["r05", "r04"]
    assert "… and 1 more; --output json has all of them" in page
    assert "were not all made again" in page[-1]
    json.dumps(result.to_dict(), allow_nan=False)


def other_models(settings: Settings, chunk: Any) -> Any:
    """As it should be, but for three keys."""
    done = train_chunk(settings, chunk)
    for n, (key, model) in enumerate(done.models):
        if key in ("r03", "r04"):
            done.models[n] = (key, model + b" ")
    for row in done.rows:
        if row["key"] == "r04":
            row["metrics"] = {"r2": 0.5}
        if row["key"] == "r05":
            row |= {"status": "failed", "reason": "out of memory"}
    done.models[:] = [(key, model) for key, model in done.models if key != "r05"]
    return done


def test_rows_that_are_gone(trained: LocalStore) -> None:
    training = find_training(trained, "routes", "all")
    record = Registry(trained, "routes").get(1, "r01").record
    trained.delete(f"blobs/{record['snapshot']['snapshot'][:2]}/{record['snapshot']['snapshot']}")
    result = rerun_fleet(trained, "routes", training, processes=1)
    assert result.failed == "data: not in the store"
    assert result.sentence == "0 of 15 models have the same bytes"
    assert "cannot be made again here" in render_fleet(result)


def test_the_command(trained: LocalStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", trained.uri)
    given = {"verify": True, "folder": None, "allow_command": False, "output": "text", "run": None}
    rerun(Namespace(model="routes", **given))
    out, err = capsys.readouterr()
    assert "The models of the run some were made again." in out
    assert "routes, run some: all its models trained again, here; nothing is registered" in err
    rerun(Namespace(model="routes[r01]:2", **given))
    assert "routes[r01] v2 was made again." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        rerun(Namespace(model="routes[r01]:2", **given | {"run": "all"}))
    assert "a run has many: routes --run all" in capsys.readouterr().err
    assert len(fleet_runs(trained, "routes")) == 3
