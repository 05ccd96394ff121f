"""What a file with ``fleet`` may ask for."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.factory.levels import dag_specs
from airflow_mlops.pipeline import Pipeline

FILE: dict[str, Any] = {
    "pipeline": "routes",
    "level": 1,
    "data": {"source": "rows.parquet", "target": "y", "id": "id"},
    "train": {"estimator": "sklearn.linear_model.Ridge"},
    "evaluate": {"gates": [{"metric": "r2", "at_least": 0.2}]},
    "retrain": {"schedule": "@weekly"},
    "fleet": {"key": "route"},
}


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_level_trains_a_fleet_in_shards(level: int) -> None:
    config = PipelineConfig.model_validate(FILE | {"level": level, "retrain": FILE["retrain"] if level else None})
    specs = {spec.suffix: spec for spec in dag_specs(config)}
    assert set(specs) == {"train", "predict", "registry"}
    predict = {step.name: step.after for step in specs["predict"].steps_for(config)}
    assert predict == {
        "predict.partition": (),
        "predict.shards": ("predict.partition",),
        "predict.publish": ("predict.shards",),
    }
    assert {"window_start", "window_end", "source", "output"} <= set(specs["predict"].form)
    steps = {step.name: step.after for step in specs["train"].steps_for(config)}
    assert steps["fleet.train"] == ("fleet.partition",)
    assert steps["evaluate.gates"] == ("fleet.partition", "fleet.train")
    assert ("approve.ask" in steps) == (level == 0)
    assert [*steps][-1] == ("promote.champion" if level else "promote.handover")
    assert "train.fit" not in steps


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": {"callable": "my.code:fit"}}, "trains an `estimator`"),
        ({"monitor": {"skew": {}}}, "has no `monitor.skew`"),
        (
            {"validate": {"engine": "sql"}, "data": {"sql": {"conn_id": "w", "query": "SELECT 1"}, "target": "late"}},
            "`validate.engine: sql` is for one model",
        ),
        ({"monitor": {"performance": {"estimate": True}}}, "has no `monitor.performance.estimate`"),
        ({"monitor": {"drift": {"engine": "evidently"}}}, "thousands would alarm by chance"),
        ({"monitor": {"drift": {"multivariate": True}}}, "`monitor.drift.multivariate` is for one model"),
        ({"monitor": {"drift": {"correction": "bh"}}}, "it is Benjamini and Hochberg's"),
        ({"evaluate": {"gates": [{"serving": {"p95_ms": 20.0}}]}}, "judges each key by a `metric`"),
        ({"evaluate": {"gates": [{"metric": "r2", "at_least": 0.1, "slices": ["line"]}]}}, "judges each key"),
        ({"validate": {"labels": {"max_rate_change": 0.2}}}, "a fleet has one for each key"),
        ({"fleet": {"key": "id"}}, "which is `data.id`"),
        ({"fleet": {"key": ["route", "route"]}}, "names a column twice"),
        ({"fleet": {"key": "route", "parent": "route"}}, "`parent` is the key itself: each key would be trained twice"),
        ({"fleet": {"key": ["route"], "parent": "route"}}, "`parent` is the key itself"),
        ({"data": FILE["data"] | {"private": ["route"]}}, "keys are shown"),
    ],
)
def test_what_a_fleet_cannot_do_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PipelineConfig.model_validate(FILE | change)


def test_a_fleet_has_no_one_result() -> None:
    config = PipelineConfig.model_validate(FILE)
    with pytest.raises(ConfigError, match=r"use Pipeline.run_fleet\(\)"):
        Pipeline(config).run()


def test_a_fleet_predicts_in_mapped_shards() -> None:
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_mlops.factory.builder import build_pipeline

    batch = {"source": "new.parquet", "output": "out", "schedule": "@daily"}
    dags = build_pipeline(PipelineConfig.model_validate(FILE | {"deploy": {"batch": batch}}))
    (dag,) = (dag for name, dag in dags.items() if name.endswith("__predict"))
    assert isinstance(dag.get_task("predict.shards"), MappedOperator)
    assert dag.get_task("predict.shards").upstream_task_ids == {"predict.partition"}
    assert dag.get_task("predict.publish").upstream_task_ids == {"predict.shards"}
    assert [asset.name.rpartition(".")[2] for asset in dag.get_task("predict.publish").outlets] == ["predictions"]


def test_a_fleet_is_watched_key_by_key() -> None:
    from airflow_mlops.factory.builder import build_pipeline
    from airflow_mlops.operators import fleet_monitoring

    watched = {
        "monitor": {"max_age": "30d", "labels": {"source": "outcomes.parquet", "join_on": "id"}},
        "retrain": {"when": ["drift", "performance", "staleness"], "confirm": "2 of 3"},
    }
    for level in (1, 2):
        dags = build_pipeline(PipelineConfig.model_validate(FILE | watched | {"level": level}))
        monitor = dags["routes__monitor"]
        assert {t.task_id: t.upstream_task_ids for t in monitor.tasks} == {
            "monitor.quality": set(),
            "monitor.drift": set(),
            "monitor.performance": {"monitor.drift"},
            "monitor.staleness": set(),
            "retrain.request": {"monitor.drift", "monitor.performance", "monitor.staleness"},
        }
        assert isinstance(monitor.get_task("monitor.drift"), fleet_monitoring.FleetDriftCheckOperator)
        assert isinstance(monitor.get_task("monitor.performance"), fleet_monitoring.FleetPerformanceCheckOperator)
        assert isinstance(monitor.get_task("monitor.staleness"), fleet_monitoring.FleetStalenessCheckOperator)
        request = monitor.get_task("retrain.request")
        assert isinstance(request, fleet_monitoring.FleetRequestRetrainOperator)
        assert {*request.checks} == {"drift", "performance", "staleness"}
        # What is compared with is kept where somebody compares.
        assert dags["routes__train"].get_task("fleet.train").partial_kwargs["watched"]
        assert dags["routes__train"].get_task("data.snapshot").gaps
    unwatched = build_pipeline(PipelineConfig.model_validate(FILE))
    assert "routes__monitor" not in unwatched
    assert not unwatched["routes__train"].get_task("fleet.train").partial_kwargs["watched"]


def test_what_the_runs_of_a_fleet_take_may_be_watched() -> None:
    from airflow_mlops.factory.builder import build_pipeline
    from airflow_mlops.operators.monitoring import SystemCheckOperator

    dags = build_pipeline(PipelineConfig.model_validate(FILE | {"monitor": {"system": {}}}))
    assert isinstance(dags["routes__monitor"].get_task("monitor.system"), SystemCheckOperator)
