"""Level 2: a commit is checked, built once, and brought from environment to environment; what fails is taken back."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_mlops.config.project import Project
from airflow_mlops.factory.levels.spec import Step

CI = "ci"
"""The task group of what is done before anything is deployed; no environment can have this name."""
STAGES = ("lint", "test", "build", "train", "gates", "contract")
REPORT = "report.outcome"
FORM = ("ref", "up_to", "reason")


def delivery_steps(project: Project) -> tuple[Step, ...]:
    """Return the steps of ``<project>__delivery``, in an order in which each comes after what it follows.

    In each environment: ``ready`` (is it wanted, and can it be done?), ``approve`` where a person is asked,
    ``deploy``, ``verify``, ``smoke`` where runs are asked for, and ``rollback``, which runs when one of them failed.
    """
    steps = [Step(f"{CI}.checkout")]
    for stage in STAGES:
        steps.append(Step(f"{CI}.{stage}", (steps[-1].name,)))
    last = steps[-1].name
    for name, environment in project.environments.items():
        steps.append(Step(f"{name}.ready", (last,)))
        if environment.approve.required:
            steps.append(Step(f"{name}.approve", (f"{name}.ready",)))
        steps.append(Step(f"{name}.deploy", (steps[-1].name,)))
        steps.append(Step(f"{name}.verify", (f"{name}.deploy",)))
        if environment.smoke is not None:
            steps.append(Step(f"{name}.smoke", (f"{name}.verify",)))
        last = steps[-1].name
        tried = (f"{name}.deploy", f"{name}.verify", f"{name}.smoke")
        steps.append(Step(f"{name}.rollback", tuple(step.name for step in steps if step.name in tried)))
    return (*steps, Step(REPORT, tuple(step.name for step in steps)))


def record_name(step: str) -> str:
    """How a step is called in the store's records: stages without their group, as ``airflow mlops ci`` calls them."""
    return step.removeprefix(f"{CI}.")


def record_names(steps: Sequence[Step]) -> tuple[str, ...]:
    """The names of all steps that leave a record."""
    return tuple(record_name(step.name) for step in steps if step.name != REPORT)
