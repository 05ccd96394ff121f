"""``load_delivery("..")``: the DAG that delivers a project."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, BaseOperator, Param, TaskGroup, TriggerRule

from airflow_mlops.config.folder import PROJECT_FILE
from airflow_mlops.config.models import length
from airflow_mlops.config.project import Project, name_in, read_project
from airflow_mlops.config.text import read_text
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.factory.invalid import invalid_dag, invalid_id
from airflow_mlops.factory.levels.delivery import CI, REPORT, delivery_steps, record_names
from airflow_mlops.operators.promotion import NO, YES
from airflow_mlops.window import parse_duration

_SUMMARIES = {
    "checkout": "Decides which commit is delivered, and keeps its files for the steps to come.",
    "lint": "Checks pipeline files and Python files.",
    "test": "Runs the project's tests.",
    "build": "Reads the DAGs as Airflow does, and packs and signs the bundle.",
    "train": "Trains each changed pipeline, and the deployed one on the same rows.",
    "gates": "Judges the changed pipelines by their gates, against the deployed ones.",
    "contract": "Checks that training and prediction see the same features.",
    "ready": "Looks whether the bundle can be deployed here; nothing is touched yet.",
    "approve": "Asks a person (Required Actions).",
    "deploy": "Deploys the bundle with one commit on the environment's branch.",
    "verify": "Looks that the Airflow there runs what was deployed, without errors.",
    "smoke": "Starts runs there and waits until they are green.",
    "rollback": "Returns to the deployment before, where one of these failed behind the deployment.",
    "outcome": "Tells where every environment stands; red where something failed.",
}
_BODY = """\
{{% set ready = ti.xcom_pull(task_ids='{environment}.ready') %}}\
{{% set checked = ti.xcom_pull(task_ids='{ci}.contract') %}}\
Commit **{{{{ checked.commit }}}}** of {project} has passed every stage. \
Now {{{{ ready.told }}}}.

{{% if checked.metrics %}}\
| pipeline | metric | deployed | this commit | |
|---|---|---|---|---|
{{% for m in checked.metrics %}}| {{{{ m.pipeline }}}} | {{{{ m.name }}}} | {{{{ '%.4g' | format(m.before) }}}} \
| {{{{ '%.4g' | format(m.after) }}}} | {{{{ m.verdict }}}} |
{{% endfor %}}
{{% endif %}}\
The report is linked from the task `{ci}.contract`.

**Approve** deploys it to {environment}. **Reject** leaves {environment} as it is.
"""


Customise = Callable[[DAG, Project], None]


def load_delivery(
    folder: str | Path = "..",
    *,
    sample: int = 5000,
    test_timeout: float = 600,
    train_timeout: float = 1800,
    customise: Customise | None = None,
) -> dict[str, DAG]:
    """Build ``<project>__delivery``; a file that cannot be used becomes a DAG whose page is the error.

    The loader that makes the call belongs into a bundle of its own, in an Airflow that may push to the environments'
    branches: that of the first environment, or one for this alone. It runs the project's tests.

    :param folder: the project's, with ``project.yaml``; a relative path starts at the file that makes the call.
    :param sample: rows that a pipeline is trained on, at most.
    :param test_timeout: seconds for the project's tests.
    :param train_timeout: seconds for one training.
    :param customise: called with the DAG and the project, to add what is one's own.
    :returns: ``{dag_id: DAG}``, to be put into the module's globals.
    """
    path = Path(folder)
    if not path.is_absolute():
        path = (Path(sys._getframe(1).f_code.co_filename).resolve().parent / path).resolve()
    path = path / PROJECT_FILE
    limits = {"sample": sample, "test_timeout": test_timeout, "train_timeout": train_timeout}
    try:
        project = read_project(path.parent)
        if name_in(read_text(path)) is None:
            # The folder of a repository that Airflow has cloned is called otherwise than the project.
            raise ConfigError(f"{path}: the project has no name", hint="write `project: NAME` into it")
    except ConfigError as e:
        dag_id = invalid_id(path.parent.name, path, ())
        return {dag_id: invalid_dag(dag_id, path, str(e))}
    dag = build_delivery(project, path.parent, limits)
    if customise is not None:
        customise(dag, project)
    return {dag.dag_id: dag}


def build_delivery(project: Project, folder: Path, limits: dict[str, Any]) -> DAG:
    """Build the DAG ``<project>__delivery``.

    :param folder: where ``project.yaml`` lies.
    :param limits: ``sample``, ``test_timeout`` and ``train_timeout``, as :func:`load_delivery` takes them.
    """
    steps = delivery_steps(project)
    names = list(project.environments)
    summary = f"Check a commit of {project.name}, build it once, and bring it to {', then to '.join(names)}."
    lines = [f"**{summary}**", "", *(f"- `{step.name}`: {_SUMMARIES[step.name.split('.')[1]]}" for step in steps)]
    with DAG(
        dag_id=f"{project.name}__delivery",
        description=summary,
        doc_md="\n".join(lines),
        schedule=_schedule(project, folder),
        catchup=False,
        # One after the other: who deploys has looked at what the one before has left.
        max_active_runs=1,
        default_args={"owner": "mlops", "retries": 2, "retry_delay": timedelta(seconds=30)},
        tags={"mlops", "delivery"},
        render_template_as_native_obj=False,
    ) as dag:
        _tasks(project, folder, limits)
    dag.params.update(
        {
            "ref": Param(
                None, type=["null", "string"], title="What",
                description=f"A branch, a tag, or a commit with all its digits. Empty: {project.branch}.",
            ),
            "up_to": Param(
                names[-1], type="string", enum=names, title="Up to", description="The last environment that gets it."
            ),
            "reason": Param(
                None, type=["null", "string"], title="Reason", description="Why; kept with every deployment."
            ),
        }
    )  # fmt: skip
    return dag


def _schedule(project: Project, folder: Path) -> Any:
    """A new commit on the branch, or a new tag, where the project asks for that."""
    if project.watch is None:
        return None
    from airflow_mlops.hooks.delivery import address
    from airflow_mlops.triggers.commits import NewCommitTrigger

    every = parse_duration(project.watch.every)
    trigger = NewCommitTrigger(
        address(project, folder),
        project.conn_id,
        project.branch,
        project.watch.tags,
        poll_interval=every.total_seconds(),
        # What is there at the first look is delivered, too; where it has been already, its run is skipped.
        emit_first=True,
    )
    name = f"{project.name}.commits"
    watcher = AssetWatcher(name=name, trigger=trigger)
    return Asset(name=name, uri=f"x-mlops://{project.name}/commits", group="mlops", watchers=[watcher])


def _tasks(project: Project, folder: Path, limits: dict[str, Any]) -> None:
    steps = delivery_steps(project)
    groups: dict[str, TaskGroup] = {}
    made: dict[str, BaseOperator] = {}
    common = {"project": project, "folder": str(folder), "steps": record_names(steps)}
    for step in steps:
        group, task_id = step.name.split(".")
        if group not in groups:
            groups[group] = TaskGroup(group_id=group)
        with groups[group]:
            task = _task(group, task_id, project, common, limits, made)
        task.doc_md = _SUMMARIES[task_id]
        made[step.name] = task
        for name in step.after:
            if made[name].task_id not in task.upstream_task_ids:
                made[name] >> task


def _task(
    group: str, task_id: str, project: Project, common: dict[str, Any], limits: dict[str, Any],
    made: dict[str, BaseOperator],
) -> BaseOperator:  # fmt: skip
    from airflow_mlops.operators import delivery, deployment

    if f"{group}.{task_id}" == REPORT:
        return delivery.DeliveryReportOperator(task_id=task_id, trigger_rule=TriggerRule.ALL_DONE, **common)
    if group == CI:
        if task_id == "checkout":
            return delivery.CheckoutOperator(task_id=task_id, **common)
        return delivery.StageOperator(task_id=task_id, limits=limits, **common)
    common = common | {"environment": group}
    if task_id == "ready":
        return deployment.ReadyOperator(task_id=task_id, **common)
    if task_id == "approve":
        return _approve(group, project)
    if task_id == "deploy":
        asked = made.get(f"{group}.approve")
        return deployment.DeployOperator(task_id=task_id, approval=asked.output if asked else None, **common)
    if task_id == "rollback":
        return deployment.RollbackOperator(task_id=task_id, trigger_rule=TriggerRule.ONE_FAILED, **common)
    looked = {"verify": deployment.VerifyOperator, "smoke": deployment.SmokeOperator}[task_id]
    return looked(task_id=task_id, **common)


def _approve(environment: str, project: Project) -> BaseOperator:
    from airflow.providers.standard.operators.hitl import HITLOperator

    approve = project.environments[environment].approve
    commit = f"{{{{ ti.xcom_pull(task_ids='{CI}.contract')['commit'][:12] }}}}"
    return HITLOperator(
        task_id="approve",
        subject=f"Deploy {commit} of {project.name} to {environment}?",
        options=[YES, NO],
        body=_BODY.format(environment=environment, project=project.name, ci=CI),
        assigned_users=[{"id": user, "name": user} for user in approve.by] or None,
        response_timeout=length(approve.timeout),
        defaults=approve.on_timeout.capitalize() if approve.timeout else None,
        # Airflow would take it for the time a person has.
        execution_timeout=None,
    )
