"""What the functions that make a step's operator work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, get_parsing_context

from airflow_mlops.config.models import PipelineConfig, Resources, length
from airflow_mlops.factory import executors
from airflow_mlops.factory.assets import PipelineAssets


@dataclass
class StepContext:
    """What a step function works with: configuration, assets, the pipeline's file, and the tasks made so far."""

    config: PipelineConfig
    assets: PipelineAssets
    source: Path | None = None
    tasks: dict[str, BaseOperator] = field(default_factory=dict)

    def common(self, resources: Resources | None) -> dict[str, Any]:
        """Arguments that every operator of this package takes, with the section's resources."""
        notify = self.config.notify
        wanted = {"events": list(notify.events), "notifiers": [n.model_dump(by_alias=True) for n in notify.notifiers]}
        return {
            "pipeline": self.config.pipeline,
            "history": self.config.data.window,
            "notify": wanted if notify.notifiers else None,
            **airflow_resources(self.config.resources, resources),
        }

    def output(self, *names: str) -> Any:
        """XCom of the first of ``names`` that this DAG has, or ``None``."""
        return next((self.tasks[name].output for name in names if name in self.tasks), None)


def airflow_resources(*layers: Resources | None) -> dict[str, Any]:
    """Operator arguments of resources; a later layer's values go before an earlier one's."""
    merged: dict[str, Any] = {}
    for layer in layers:
        if layer is not None:
            merged |= layer.model_dump(exclude_none=True)
    timeout = merged.pop("timeout", None)
    # Where a task starts, its executor has done its part.
    if not get_parsing_context().dag_id:
        executors.check(merged.get("executor"))
        if "pod_override" in merged.get("executor_config", ()):
            merged["executor_config"] |= {"pod_override": executors.pod(merged["executor_config"]["pod_override"])}
    return merged | ({"execution_timeout": length(timeout)} if timeout else {})


def training_arguments(c: StepContext) -> dict[str, Any]:
    """Arguments of whatever trains a candidate."""
    config = c.config
    return {
        "data": config.data,
        "train": config.train,
        "features": config.features,
        "evaluate": config.evaluate,
        "task": config.task,
        "folder": str(c.source.parent) if c.source else None,
        "about": {"owner": config.owner, "description": config.description, "level": config.level},
        **c.common(config.train.resources),
    }


Step = tuple[Callable[[StepContext, str], BaseOperator], str]
"""The function that makes a step's operator, and one sentence for people."""
