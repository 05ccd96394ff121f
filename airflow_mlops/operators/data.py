"""Freeze the data of a run, and show what is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.config.models import Data, length
from airflow_mlops.links.reports import DataProfileLink
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.window import Window


class SnapshotOperator(MLOpsOperator):
    """Read the source once into an immutable, fingerprinted snapshot; everything after works on that.

    Returns the snapshot's reference: ``{"snapshot", "fingerprint", "rows", "columns", "window", "uri"}``.

    :param data: the ``data`` section as in YAML.
    :param gaps: whether some rows may lack the target: in a fleet the validation judges each key by its own rows.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "source")

    def __init__(self, *, data: Data | Mapping[str, Any], gaps: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = section(Data, data)
        self.gaps = gaps
        self.source = self.data.source or (self.data.sql.query if self.data.sql else self.data.callable)

    def data_window(self, scope: RunScope) -> Window | None:
        """The run's window, or ``data.window`` of history that ends where it ends."""
        history = length(self.data.window)
        return scope.window.reaching_back(history) if scope.window and history else scope.window

    def _resolved(self, context: Context) -> Data:
        """The data section with templates rendered and the trigger form's ``source`` put in."""
        if asked := self.form_path(context, "source"):
            return self.data.model_copy(update={"source": asked, "sql": None, "callable": None})
        if self.data.source:
            return self.data.model_copy(update={"source": self.source})
        if self.data.sql:
            return self.data.model_copy(update={"sql": self.data.sql.model_copy(update={"query": self.source})})
        return self.data

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Read, check and store the rows of the run's window."""
        from airflow_mlops.ml.data import read_batches, take_snapshot

        data, window, store = self._resolved(context), self.data_window(scope), self.hook.store()
        self.log.info("Reading %s for %s", data.source or data.callable or data.sql, window or "all time")
        batches = read_batches(
            data,
            files=self.hook.files(data.source),
            window=window,
            sql=self.hook.sql,
            allowed_imports=self.hook.allowed_imports,
        )
        previous = None
        if data.max_row_drop:
            champion = self.hook.registry(self.pipeline).champion()
            # A model that was trained elsewhere has no snapshot here.
            previous = champion.record["snapshot"].get("rows") if champion else self._rows_of_fleet()
        snapshot = take_snapshot(
            store,
            self.pipeline,
            batches,
            data=data,
            window=window,
            previous_rows=previous,
            gaps=self.gaps,
            log=self.log.info,
        )
        return snapshot.to_ref()

    def _rows_of_fleet(self) -> int | None:
        """Rows of the last training of a fleet, which has no champion of its own."""
        from airflow_mlops.ml.fleet.result import read_newest

        newest = read_newest(self.hook.store(), self.pipeline)
        return newest["rows"] if newest is not None else None


class ProfileOperator(MLOpsOperator):
    """Describe a snapshot, column by column, in a report to look at.

    :param snapshot: reference returned by :class:`SnapshotOperator`.
    :param data: the ``data`` section as in YAML.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "snapshot")
    operator_extra_links = (DataProfileLink(),)

    def __init__(self, *, snapshot: Any, data: Data | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.snapshot = snapshot
        self.data = section(Data, data)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Profile the snapshot and keep the report."""
        from airflow_mlops.ml.data import Snapshot
        from airflow_mlops.ml.profile import profile, profile_html

        store = self.hook.store()
        result = profile(Snapshot.load(store, self.snapshot), store, target=self.data.target, private=self.data.private)
        return {"report": self.keep_report(context, "Data profile", profile_html(result)), "rows": result["rows"]}
