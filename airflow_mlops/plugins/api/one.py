"""One pipeline that the user may see, and its records, for the pages about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from starlette.exceptions import HTTPException

from airflow_mlops.plugins.api.live import Live, live_pipelines
from airflow_mlops.registry.key_asked import checks_of_key, ledger_of_key
from airflow_mlops.registry.key_story import key_records
from airflow_mlops.registry.registry import Registry

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

    from airflow_mlops.plugins.api.reader import StoreReader
    from airflow_mlops.registry.records import Records
    from airflow_mlops.registry.version import Version
    from airflow_mlops.store.base import Store

T = TypeVar("T")


@dataclass(frozen=True)
class One:
    """A pipeline as a page sees it."""

    live: Live
    store: Store
    records: Records

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.live.pipeline

    def of_key(self, key: str | None) -> One:
        """The same with the records of one model of a fleet; without a key, or where there is no fleet, as it is.

        :raises HTTPException: 404: the fleet has no such model.
        """
        if key is None or not self.records.batches:
            return self
        records = key_records(self.store, self.name, key)
        if not records.log:
            why = self._why_none(key)
            raise HTTPException(
                404, f"The fleet {self.name} has no model of the key {key!r}{f'; {why}' if why else '.'}"
            )
        return replace(self, records=records)

    def story_of_key(self, key: str | None) -> One:
        """Like :meth:`of_key`, with the alarms about the model, and what asked for its training.

        :raises HTTPException: 404: the fleet has no such model.
        """
        mine = self.of_key(key)
        if key is None or mine is self:
            return mine
        checks = checks_of_key(self.store, self.records.checks, key)
        ledger = ledger_of_key(self.store, self.records.ledger, key)
        return replace(mine, records=replace(mine.records, checks=checks, ledger=ledger))

    def _why_none(self, key: str) -> str | None:
        """What the last training of a key without a model came to."""
        if not (trainings := self.records.trainings):
            return None
        # Parquet, and what reads it, come into the server with the first page of a fleet.
        from airflow_mlops.ml.fleet.carried import read_key

        row = read_key(self.store, trainings[-1].all_keys or trainings[-1].table, key)
        if row is None:
            return None
        return f"{row['status'].replace('_', ' ')} in {row['decided_in'] or trainings[-1].run_id}: {row['reason']}"

    def version(self, number: int, key: str | None = None) -> Version:
        """A version with its record and notes.

        :raises VersionNotFound: there is none.
        """
        return Registry(self.store, self.name).get(number, key)


def visible(user: BaseUser, pipeline: str) -> Live:
    """The pipeline, if the user may read its ``__train``.

    :raises HTTPException: 404: there is none, or the user may not know.
    """
    live = live_pipelines(user, pipeline).get(pipeline)
    if live is None or not live.readable:
        raise HTTPException(404, f"There is no pipeline {pipeline} here, or you may not read it.")
    return live


def with_records(user: BaseUser, reader: StoreReader, pipeline: str, work: Callable[[One], T]) -> T:
    """Return ``work(pipeline)``, done in the reader's threads.

    :raises HTTPException: 404, as :func:`visible` does.
    :raises Busy: the store does not answer in time.
    """
    return read_records(visible(user, pipeline), reader, work)


def read_records(live: Live, reader: StoreReader, work: Callable[[One], T]) -> T:
    """Like :func:`with_records`, of a pipeline that was found visible before."""
    summaries, _ = reader.index(reader.begin())
    summary = summaries.get(live.pipeline)
    return reader.ask(lambda store: work(One(live, store, reader.records(live.pipeline, live.mark, summary, store))))
