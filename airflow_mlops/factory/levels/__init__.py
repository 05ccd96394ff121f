"""The levels, as data: which DAGs each one has and their steps in order."""

from __future__ import annotations

from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.factory.levels import continuous_training, manual, pipeline_delivery
from airflow_mlops.factory.levels.experiment import ALONE
from airflow_mlops.factory.levels.fleet import fleet_of
from airflow_mlops.factory.levels.spec import DagSpec, Step

LEVELS: dict[int, tuple[DagSpec, ...]] = {0: manual.LEVEL, 1: continuous_training.LEVEL, 2: pipeline_delivery.LEVEL}


def dag_specs(config: PipelineConfig) -> tuple[DagSpec, ...]:
    """The DAGs that ``config`` has at its level; one without steps is left out."""
    if not config.has_model:
        return (ALONE,)
    specs = LEVELS[config.level] if config.fleet is None else fleet_of(LEVELS[config.level])
    return tuple(spec for spec in specs if spec.steps_for(config))


__all__ = ["LEVELS", "DagSpec", "Step", "dag_specs"]
