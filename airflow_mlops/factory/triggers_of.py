"""What starts each DAG of a pipeline, decided from its file alone."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_mlops.config.models import PipelineConfig


@dataclass(frozen=True)
class Triggers:
    """What starts a DAG beside a person.

    :param cron: in the pipeline's time zone; ``None``: no schedule.
    :param assets: endings of the assets' names; an event of any one starts the DAG.
    """

    cron: str | None = None
    assets: tuple[str, ...] = ()


def triggers_of(config: PipelineConfig, suffix: str) -> Triggers:
    """What starts the DAG ``<pipeline>__<suffix>``: nothing at level 0, else cron, assets, or both."""
    if config.level == 0:
        return Triggers()
    if suffix == "train" and config.retrain:
        when = set(config.retrain.when)
        data = ("data",) if "new_data" in when else ()
        granted = ("retrain",) if when - {"new_data"} else ()
        return Triggers(config.retrain.schedule, data + granted)
    if suffix == "predict":
        return Triggers(config.deploy.batch.schedule)
    if suffix == "monitor":
        cron = config.monitor.schedule if config.monitor else None
        return Triggers(cron, () if cron else ("predictions",))
    if suffix == "experiment" and config.has_model:
        return Triggers(assets=("experiment",))
    return Triggers()
