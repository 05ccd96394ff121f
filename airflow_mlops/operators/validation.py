"""Check the data against its schema and expectations before a model sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.config.models import Data, Fleet, Validate
from airflow_mlops.links.reports import ValidationReportLink
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section

if TYPE_CHECKING:
    from airflow.sdk import Context


class ValidateOperator(MLOpsOperator):
    """Run Great Expectations and the schema lock on a snapshot.

    Returns the reference of the snapshot to go on with: the same one, or the good rows of it where
    ``on_failure`` is ``quarantine``.

    :param snapshot: reference returned by :class:`~airflow_mlops.operators.data.SnapshotOperator`.
    :param data: the ``data`` section as in YAML.
    :param validate: the ``validate`` section as in YAML; ``fleet`` likewise, where there is a model for each key.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "snapshot")
    operator_extra_links = (ValidationReportLink(),)

    def __init__(
        self,
        *,
        snapshot: Any,
        data: Data | Mapping[str, Any],
        validate: Validate | Mapping[str, Any] | None = None,
        fleet: Fleet | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.snapshot = snapshot
        self.data = section(Data, data)
        self.validate = section(Validate, validate)
        self.fleet = section(Fleet, fleet) if fleet else None

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Validate, keep the report, and block, warn or quarantine."""
        from airflow_mlops.ml.data import Snapshot
        from airflow_mlops.ml.seen import trained_classes
        from airflow_mlops.ml.validation import validate

        store = self.hook.store()
        champion = self.hook.registry(self.pipeline).champion()
        seen = trained_classes(champion.record) if champion else None
        snapshot = Snapshot.load(store, self.snapshot)
        result = validate(
            snapshot, store, self.validate, self.data, seen=seen, fleet=self.fleet, database=self.hook.database
        )
        report = self.keep_report(context, "Validation report", result.html)
        for check in result.failed:
            self.log.warning("%s", check.sentence)
        for key, why in [*result.broken.items()][:10]:
            self.log.warning("%s is set aside, %s", key, why)
        if result.asked is not None:
            self.log.info("Validation: %s", result.asked.sentence)
        self.log.info("Validation: %s", result.sentence)
        if result.labels is not None:
            self.log.info("Validation: %s", result.labels.sentence)
        result.check()
        return {**result.snapshot.to_ref(), "validation": result.evidence | {"report": report}}
