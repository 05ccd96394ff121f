"""What the store keeps of an experiment: its plan, a record for each trial that has ended, and the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound
from airflow_mlops.registry.log import op_id
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import canonical_json


class ExperimentRecords:
    """The records of one experiment. Every write is atomic, and the same again changes nothing that counts.

    :param experiment: its id, 64 hex digits.
    """

    def __init__(self, store: Store, pipeline: str, experiment: str) -> None:
        self.store = store
        self.pipeline = pipeline
        self.experiment = experiment

    def plan(self) -> dict[str, Any]:
        """The plan.

        :raises ObjectNotFound: there is no such experiment. :raises CorruptObject: it is damaged.
        """
        return _read(self.store, layout.experiment(self.pipeline, self.experiment, "plan"))

    def write_plan(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Keep the plan and return it as it will be read."""
        written = canonical_json(plan)
        self.store.put(layout.experiment(self.pipeline, self.experiment, "plan"), written)
        read: dict[str, Any] = json.loads(written)
        return read

    def result(self) -> dict[str, Any] | None:
        """The result; ``None`` where there is none yet."""
        try:
            return _read(self.store, layout.experiment(self.pipeline, self.experiment, "result"))
        except ObjectNotFound:
            return None

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Keep the result."""
        self.store.put(layout.experiment(self.pipeline, self.experiment, "result"), canonical_json(result))

    def trial(self, rung: int, number: int) -> dict[str, Any] | None:
        """The record of one trial on one rung; ``None`` where it has not ended."""
        try:
            return _read(self.store, layout.trial(self.pipeline, self.experiment, rung, number))
        except ObjectNotFound:
            return None

    def write_trial(self, record: Mapping[str, Any]) -> None:
        """Keep the record of a trial that has ended."""
        key = layout.trial(self.pipeline, self.experiment, record["rung"], record["number"])
        self.store.put(key, canonical_json(record))

    def trials(self) -> list[dict[str, Any]]:
        """The records of all trials that have ended, by rung and number."""
        keys = [*self.store.list(layout.trials_prefix(self.pipeline, self.experiment))]
        return [*parallel(lambda key: _read(self.store, key), keys, self.store)]


def experiment_id(*parts: Any) -> str:
    """Name an experiment by what makes it this one: the run it belongs to, or plan and data."""
    return op_id("experiment", *parts)


def _read(store: Store, key: str) -> dict[str, Any]:
    try:
        found = json.loads(store.get(key))
    except ValueError as e:
        raise CorruptObject(
            f"the record {key!r} in {store.uri} is damaged: it is no JSON",
            hint="delete it: what it recorded is run again",
        ) from e
    if not isinstance(found, dict) or found.get("format") != 1:
        raise CorruptObject(
            f"the record {key!r} in {store.uri} is damaged, or of a newer version of this package",
            hint="use the version that wrote it, or delete it: what it recorded is run again",
        )
    return found
