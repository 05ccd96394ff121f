"""The assets that chain a pipeline's DAGs: data → train → champion → predict → monitor → retrain, experiment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from airflow.sdk import Asset, AssetOrTimeSchedule, AssetWatcher, CronDataIntervalTimetable

from airflow_mlops.config.models import PipelineConfig, length
from airflow_mlops.factory.triggers_of import triggers_of


class PipelineAssets:
    """The assets of one pipeline. Names are ``<pipeline>.<what>``.

    ``data`` gets its events from whatever writes the data (name it as an outlet there, or post an
    asset event), or from a watcher where ``data.watch`` is set. The others are written by this
    package's tasks.
    """

    def __init__(self, config: PipelineConfig) -> None:
        self.pipeline = config.pipeline
        self._watched = (config.data.source, length(config.data.watch))

    def _asset(self, what: str, watchers: Sequence[AssetWatcher] = ()) -> Asset:
        # A scheme with x- is not looked up among all providers' URI handlers, which costs each parse 0.2 s.
        return Asset(
            name=f"{self.pipeline}.{what}", uri=f"x-mlops://{self.pipeline}/{what}", group="mlops", watchers=[*watchers]
        )

    @cached_property
    def data(self) -> Asset:
        """New rows to train on."""
        source, every = self._watched
        if source is None or every is None:
            return self._asset("data")
        from airflow_mlops.triggers.data import NewDataTrigger

        # What is there at the first look is news too: a new pipeline trains on it.
        trigger = NewDataTrigger(source, poll_interval=every.total_seconds(), emit_first=True)
        return self._asset("data", [AssetWatcher(name=f"{self.pipeline}.files", trigger=trigger)])

    @cached_property
    def champion(self) -> Asset:
        """The model that serves."""
        return self._asset("champion")

    @cached_property
    def predictions(self) -> Asset:
        """What it predicted."""
        return self._asset("predictions")

    @cached_property
    def retrain(self) -> Asset:
        """A granted request to train again."""
        return self._asset("retrain")

    @cached_property
    def experiment(self) -> Asset:
        """A request to try other variants: training the same one again no longer helps."""
        return self._asset("experiment")


def schedule(config: PipelineConfig, suffix: str, assets: PipelineAssets) -> Any:
    """What starts the DAG ``<pipeline>__<suffix>``: ``None`` at level 0, else cron, assets, or both."""
    triggers = triggers_of(config, suffix)
    cron, wanted = triggers.cron, [getattr(assets, name) for name in triggers.assets]
    # Intervals of positive length: Airflow 3's plain cron strings make runs without one.
    timetable = CronDataIntervalTimetable(cron, timezone=config.dag.timezone) if cron else None
    if not wanted:
        return timetable
    condition: Any = wanted[0] if len(wanted) == 1 else wanted[0] | wanted[1]
    return AssetOrTimeSchedule(timetable=timetable, assets=condition) if timetable else condition
