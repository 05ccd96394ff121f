"""The typed form of a pipeline file. The JSON Schema and the reference page are generated from here.

A key that is not built is not here: unknown keys are errors. Types are strict: YAML's ``3`` is not
a string and ``"3"`` is not a number. Only what follows from the file alone is checked here; column
names, data and code are checked where they are read.
"""

from __future__ import annotations

from airflow_mlops.config.models.base import Model, Resources, length, midnight
from airflow_mlops.config.models.dag import Dag, DefaultArgs
from airflow_mlops.config.models.data import Data, Features, LabelLimits, Retention, Split, Sql, Validate
from airflow_mlops.config.models.deploy import Batch, BatchSageMaker, Deploy, StepVerdict
from airflow_mlops.config.models.evaluate import Approve, Evaluate, Gate, Serving, Value
from airflow_mlops.config.models.experiment import Candidate, EarlyStop, Experiment, Halving
from airflow_mlops.config.models.fleet import MOST_SHARDS, Fleet
from airflow_mlops.config.models.monitor import Drift, Labels, Monitor, Performance, Retrain, Skew, System
from airflow_mlops.config.models.notify import Event, Notifier, Notify
from airflow_mlops.config.models.pipeline import PipelineConfig
from airflow_mlops.config.models.train import SageMaker, Search, Train

__all__ = [
    "MOST_SHARDS",
    "Approve",
    "Batch",
    "BatchSageMaker",
    "Candidate",
    "Dag",
    "Data",
    "DefaultArgs",
    "Deploy",
    "Drift",
    "EarlyStop",
    "Evaluate",
    "Event",
    "Experiment",
    "Features",
    "Fleet",
    "Gate",
    "Halving",
    "LabelLimits",
    "Labels",
    "Model",
    "Monitor",
    "Notifier",
    "Notify",
    "Performance",
    "PipelineConfig",
    "Resources",
    "Retention",
    "Retrain",
    "SageMaker",
    "Search",
    "Serving",
    "Skew",
    "Split",
    "Sql",
    "StepVerdict",
    "System",
    "Train",
    "Validate",
    "Value",
    "length",
    "midnight",
]
