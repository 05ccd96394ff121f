"""The DAGs of a pipeline file, made in two other ways: by plain Python, and by dag-factory from its YAML.

``describe`` says what a DAG is: the recipe that both are made from, and the proof that all sides make
the same. Only the operators differ (the other two call an empty function) and what dag-factory adds by itself.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

Recipe = dict[str, Any]


def work() -> None:
    """The function a task would call."""


# --- what a DAG is -------------------------------------------------------------------------------


def describe(dag: Any) -> Recipe:
    """A DAG as plain data; the names of assets without the pipeline's."""
    pipeline, _, suffix = dag.dag_id.rpartition("__")
    return {
        "suffix": suffix,
        "description": dag.description,
        "doc_md": dag.doc_md,
        "schedule": _schedule(dag.schedule, pipeline),
        "start_date": _time(dag.start_date),
        "end_date": _time(dag.end_date),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "max_active_tasks": dag.max_active_tasks,
        "params": {name: _param(dag.params.get_param(name)) for name in dag.params},
        "tags": sorted(set(dag.tags) - {"dagfactory"}),  # which dag-factory adds
        "tasks": {task.task_id: _task(task, pipeline) for task in dag.tasks},
    }


def digest(dag: Any) -> str:
    """Of all that ``describe`` says but the page, which shows the file that the DAG was made from."""
    said = {key: value for key, value in describe(dag).items() if key != "doc_md"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _time(value: datetime | None) -> str | None:
    return value.isoformat() if value else None


def _param(param: Any) -> dict[str, Any]:
    from airflow.sdk.definitions._internal.types import is_arg_set

    # One without a default has to be filled in.
    default = {"default": param.value} if is_arg_set(param.value) else {}
    return {**default, "description": param.description, **param.schema}


def _short(assets: Any, pipeline: str) -> list[str]:
    return [asset.name.removeprefix(f"{pipeline}.") for asset in assets]


def _schedule(schedule: Any, pipeline: str) -> dict[str, Any] | None:
    if schedule is None:
        return None
    condition = getattr(schedule, "asset_condition", None)
    if condition is not None:
        found = condition.objects if hasattr(condition, "objects") else [condition]
        return {"cron": schedule.timetable.expression, "assets": _short(found, pipeline)}
    if isinstance(schedule, list):
        return {"cron": None, "assets": _short(schedule, pipeline)}
    if hasattr(schedule, "uri"):
        return {"cron": None, "assets": _short([schedule], pipeline)}
    return {"cron": schedule.expression, "assets": []}


def _task(task: Any, pipeline: str) -> dict[str, Any]:
    return {
        "after": sorted(task.upstream_task_ids),
        "doc_md": task.doc_md,
        "owner": task.owner,
        "retries": task.retries,
        "retry_delay": task.retry_delay.total_seconds(),
        "exponential": task.retry_exponential_backoff,
        "trigger_rule": task.trigger_rule.value,
        "inlets": _short(task.inlets, pipeline),
        "outlets": _short(task.outlets, pipeline),
        "execution_timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
    }


def recipes(pipelines: Path) -> dict[str, list[Recipe]]:
    """``{pipeline: its DAGs}`` of the files in a folder, as this package makes them."""
    from airflow_mlops import load_dags

    found: dict[str, list[Recipe]] = {}
    for dag_id, dag in load_dags(pipelines).items():
        found.setdefault(dag_id.rpartition("__")[0], []).append(describe(dag))
    return found


def copies(recipe: dict[str, list[Recipe]], count: int) -> list[tuple[str, str, list[Recipe]]]:
    """``(name, the pipeline it is a copy of, its DAGs)`` of as many pipelines as asked for, of each kind in turn."""
    kinds = list(recipe.items())
    return [
        (f"{kind}_{i // len(kinds):04d}", kind, dags) for i in range(count) for kind, dags in [kinds[i % len(kinds)]]
    ]


# --- by hand -------------------------------------------------------------------------------------


def by_hand(recipe: dict[str, list[Recipe]], count: int, *, late: bool = False) -> dict[str, Any]:
    """DAGs as one writes them with Airflow alone; with ``late`` the form is set when the tasks are there."""
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.sdk import DAG, Asset, Param, TaskGroup

    dags: dict[str, Any] = {}
    for name, kind, made_of in copies(recipe, count):
        assets = {
            what: Asset(name=f"{name}.{what}", uri=f"x-hand://{name}/{what}", group="mlops")
            for what in ("data", "retrain", "champion", "predictions")
        }
        for it in made_of:
            first = next(iter(it["tasks"].values()))
            form = {field: Param(**given) for field, given in it["params"].items()}
            with DAG(
                f"{name}__{it['suffix']}",
                description=it["description"],
                doc_md=it["doc_md"].replace(kind, name),
                schedule=_made_schedule(it["schedule"], assets),
                start_date=datetime.fromisoformat(it["start_date"]),
                end_date=datetime.fromisoformat(it["end_date"]) if it["end_date"] else None,
                catchup=it["catchup"],
                max_active_runs=it["max_active_runs"],
                max_active_tasks=it["max_active_tasks"],
                params=None if late else form,
                tags=set(it["tags"]),
                default_args={
                    "owner": first["owner"],
                    "retries": first["retries"],
                    "retry_delay": timedelta(seconds=first["retry_delay"]),
                    "retry_exponential_backoff": first["exponential"],
                },
            ) as dag:
                made: dict[str, Any] = {}
                groups: dict[str, TaskGroup] = {}
                for task_id, task in it["tasks"].items():
                    group, short = task_id.split(".")
                    if group not in groups:
                        groups[group] = TaskGroup(group_id=group)
                    with groups[group]:
                        made[task_id] = PythonOperator(
                            task_id=short,
                            python_callable=work,
                            doc_md=task["doc_md"],
                            trigger_rule=task["trigger_rule"],
                            inlets=[assets[what] for what in task["inlets"]],
                            outlets=[assets[what] for what in task["outlets"]],
                        )
                    for earlier in task["after"]:
                        made[earlier] >> made[task_id]
            if late:
                dag.params.update(form)
            dags[dag.dag_id] = dag
    return dags


def _made_schedule(schedule: dict[str, Any] | None, assets: dict[str, Any]) -> Any:
    from airflow.sdk import AssetOrTimeSchedule, CronDataIntervalTimetable

    if schedule is None:
        return None
    timetable = CronDataIntervalTimetable(schedule["cron"], timezone="UTC") if schedule["cron"] else None
    wanted = [assets[what] for what in schedule["assets"]]
    condition = wanted[0] if len(wanted) == 1 else wanted[0] | wanted[1] if wanted else None
    if condition is None or timetable is None:
        return timetable if condition is None else condition
    return AssetOrTimeSchedule(timetable=timetable, assets=condition)


# --- dag-factory ---------------------------------------------------------------------------------


def write_dag_factory(recipe: dict[str, list[Recipe]], count: int, folder: Path) -> None:
    """One YAML file a pipeline in dag-factory's language; its own copy of the file stands in for ``doc_md``."""
    for name, _, made_of in copies(recipe, count):
        dags = {f"{name}__{it['suffix']}": _dag_factory_dag(name, it) for it in made_of}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(dags, sort_keys=False))


def _dag_factory_dag(name: str, it: Recipe) -> dict[str, Any]:
    first = next(iter(it["tasks"].values()))
    tasks: dict[str, Any] = {}
    for task_id, task in it["tasks"].items():
        group, short = task_id.split(".")
        tasks[short] = {
            "operator": "airflow.providers.standard.operators.python.PythonOperator",
            "python_callable": f"{__name__}.work",
            "task_group_name": group,
            "doc_md": task["doc_md"],
            "trigger_rule": task["trigger_rule"],
            "inlets": [_asset(name, what) for what in task["inlets"]],
            "outlets": [_asset(name, what) for what in task["outlets"]],
            "dependencies": [earlier.split(".")[1] for earlier in task["after"]],
        }
    found = {
        "description": it["description"],
        "start_date": it["start_date"],
        "end_date": it["end_date"],
        "catchup": it["catchup"],
        "max_active_runs": it["max_active_runs"],
        "max_active_tasks": it["max_active_tasks"],
        "default_args": {
            "owner": first["owner"],
            "retries": first["retries"],
            "retry_delay": {"__type__": "datetime.timedelta", "seconds": first["retry_delay"]},
            "retry_exponential_backoff": first["exponential"],
        },
        "schedule": _dag_factory_schedule(name, it["schedule"]),
        "params": {field: {"__type__": "airflow.sdk.Param", **given} for field, given in it["params"].items()},
        "tags": it["tags"],
        "task_groups": {group: {} for group in dict.fromkeys(task_id.split(".")[0] for task_id in it["tasks"])},
        "tasks": tasks,
    }
    return {key: value for key, value in json.loads(json.dumps(found)).items() if value is not None}


def _asset(name: str, what: str) -> dict[str, Any]:
    return {
        "__type__": "airflow.sdk.Asset", "name": f"{name}.{what}", "uri": f"x-hand://{name}/{what}", "group": "mlops"
    }  # fmt: skip


def _dag_factory_schedule(name: str, schedule: dict[str, Any] | None) -> Any:
    if schedule is None:
        return None
    cron = {
        "__type__": "airflow.sdk.CronDataIntervalTimetable", "__args__": [schedule["cron"]], "timezone": "UTC"
    }  # fmt: skip
    assets = [_asset(name, what) for what in schedule["assets"]]
    if not assets:
        return cron
    if not schedule["cron"]:
        return assets
    condition = assets[0] if len(assets) == 1 else {"__type__": "airflow.sdk.AssetAny", "__args__": assets}
    return {"__type__": "airflow.sdk.AssetOrTimeSchedule", "timetable": cron, "assets": condition}
