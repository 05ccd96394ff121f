"""Level 2: what level 1 does, delivered by CI/CD, and experiments."""

from __future__ import annotations

from airflow_mlops.factory.levels import continuous_training
from airflow_mlops.factory.levels.experiment import EXPERIMENT
from airflow_mlops.factory.levels.spec import DagSpec

LEVEL: tuple[DagSpec, ...] = (*continuous_training.LEVEL, EXPERIMENT)
