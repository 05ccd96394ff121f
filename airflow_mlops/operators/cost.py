"""What each task of a run costs: measured while it works, noted on the version that came of it.

The tasks before training know no version. So each leaves its cost in XCom, and the tasks that decide about a
version collect those of all tasks before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.ml.cost import Meter
    from airflow_mlops.registry.registry import Registry

XCOM_KEY = "mlops_cost"
"""XCom key of a task's cost: ``{"task", "wall_seconds", "cpu_seconds", "peak_mb"}``."""


def start_meter(context: Context) -> Meter:
    """Begin to measure the task; kept in the context, which lives as long as the try."""
    from airflow_mlops.ml.cost import Meter

    meter = Meter()
    cast("dict[str, Any]", context)[XCOM_KEY] = meter
    return meter


def cost_so_far(context: Context) -> dict[str, float]:
    """``{"wall_seconds", "cpu_seconds", "peak_mb"}`` of the task up to now."""
    meter: Meter = cast("dict[str, Any]", context)[XCOM_KEY]
    return meter.read()


def cost_up_to_here(context: Context) -> dict[str, float]:
    """As :func:`cost_so_far`, of the run's tasks before this one too: seconds summed, the largest peak."""
    before = _before(context)
    costs = (
        [c for c in context["ti"].xcom_pull(task_ids=before, key=XCOM_KEY) if isinstance(c, Mapping)] if before else []
    )
    costs.append(cost_so_far(context))
    return {
        "wall_seconds": round(sum(c["wall_seconds"] for c in costs), 3),
        "cpu_seconds": round(sum(c["cpu_seconds"] for c in costs), 3),
        "peak_mb": max(c["peak_mb"] for c in costs),
    }


def push_cost(context: Context, meter: Meter, before: Mapping[str, float] | None = None) -> None:
    """Leave the task's cost for those that come after it.

    :param before: what :func:`cost_so_far` told before the task gave its slot away to wait.
    """
    context["ti"].xcom_push(key=XCOM_KEY, value=summed(_cost(context, meter), before))


def summed(cost: Mapping[str, Any], before: Mapping[str, float] | None) -> dict[str, Any]:
    """The cost of a task that gave its slot away to wait: ``before`` it did, and after."""
    if not before:
        return dict(cost)
    seconds = {name: round(cost[name] + before[name], 3) for name in ("wall_seconds", "cpu_seconds")}
    return {**cost, **seconds, "peak_mb": max(cost["peak_mb"], before["peak_mb"])}


def _cost(context: Context, meter: Meter) -> dict[str, Any]:
    ti = context["ti"]
    name = ti.task_id if ti.map_index is None or ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"
    return {"task": name, **meter.read()}


def note_costs(registry: Registry, number: int, context: Context, price: Mapping[str, Any]) -> None:
    """Note the cost of the run's tasks up to this one, and of this one so far, on a version: once for each task.

    :param price: ``price_per_hour`` and ``currency``, or nothing; noted too, as it may be another one day.
    """
    from airflow_mlops.registry.log import op_id

    ti = context["ti"]
    before = _before(context)
    costs = list(ti.xcom_pull(task_ids=before, key=XCOM_KEY)) if before else []
    meter = cast("dict[str, Any]", context).get(XCOM_KEY)
    if meter is not None:
        costs.append(_cost(context, meter))
    for cost in costs:
        if isinstance(cost, Mapping):  # None: of a task that is no step of ours
            operation = op_id(ti.dag_id, ti.run_id, cost["task"], "cost")
            note = {**cost, "run_id": ti.run_id, **price}
            registry.annotate(number, "cost", note, op_id=operation)


def _before(context: Context) -> list[str]:
    """The pipeline's tasks in this DAG that do not wait for this one."""
    task: Any = context["task"]
    if not task.has_dag():
        return []
    others = set(task.dag.task_ids) - task.get_flat_relative_ids(upstream=False) - {task.task_id}
    return [name for name in sorted(others) if getattr(task.dag.task_dict[name], "pipeline", None) == task.pipeline]
