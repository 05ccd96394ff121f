"""Score rows with the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.config.models import Batch, Data
from airflow_mlops.exceptions import VersionNotFound
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section
from airflow_mlops.operators.cost import cost_so_far
from airflow_mlops.window import Window

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.registry.registry import Version
    from airflow_mlops.registry.rollout import Rollout


def output_folder(pipeline: str, batch: Batch, scope: RunScope) -> str:
    """Where a run writes its predictions, unless its form says otherwise."""
    output = batch.output or f"predictions/{pipeline}"
    # Beside what is served: readers of a folder leave out names that begin with an underscore.
    return output if scope.promote else f"{output.rstrip('/')}/_rehearsal"


class BatchPredictOperator(MLOpsOperator):
    """Batch inference: read, score in chunks, write the predictions in one atomic step, keep the inputs.

    A version that is rolling out scores the same rows and serves its share of the ids; the column ``model_version``
    says which version made each prediction. Which versions serve is read once, when the task begins.

    Returns ``{"version", "rows", "output", "capture"}``; ``capture`` is the digest of inputs and
    predictions, which monitoring reads. During a rollout also ``rollout``: ``{"version", "step", "served", "failed"}``.

    :param data: the ``data`` section as in YAML.
    :param batch: the ``deploy.batch`` section as in YAML.
    :param skip_without_champion: skip (a scheduled run before the first training) instead of failing.
    :param replay_rows: how many rows are kept as they came, for :class:`FeatureSkewCheckOperator`.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "source")

    def __init__(
        self,
        *,
        data: Data | Mapping[str, Any],
        batch: Batch | Mapping[str, Any] | None = None,
        skip_without_champion: bool = False,
        replay_rows: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data = section(Data, data)
        self.batch = section(Batch, batch)
        self.skip_without_champion = skip_without_champion
        self.replay_rows = replay_rows
        self.source = self.batch.source or self.data.source

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Score the window's rows with the version that serves them."""
        from airflow_mlops.ml.canary import Tried

        version, tried, rollout = self._serving()
        # A rehearsal changes nothing, so it is no evidence for a rollout either.
        beside = Tried(tried, rollout) if tried is not None and rollout is not None and scope.promote else None
        result = self._score(scope, context, version, tried=beside)
        return self._told(scope, context, version, result)

    def _serving(self) -> tuple[Version, Version | None, Rollout | None]:
        """The champion, the version that is rolling out, and its rollout.

        :raises VersionNotFound: there is no champion, and that is no reason to skip.
        """
        serving, rollout = self.hook.registry(self.pipeline).in_use()
        if not serving:
            message = f"{self.pipeline} has no champion yet: nothing to score with"
            if self.skip_without_champion:
                raise AirflowSkipException(message)
            raise VersionNotFound(message, hint=f"run {self.pipeline}__train first, and let it promote a version")
        return serving[0].version, serving[1].version if rollout is not None else None, rollout

    def _read_from(self, context: Context) -> str | None:
        return self.form_path(context, "source") or self.source

    def _score(self, scope: RunScope, context: Context, version: Version, **more: Any) -> dict[str, Any]:
        """Score and write; ``more`` goes to :func:`~airflow_mlops.ml.batch_inference.score`."""
        from airflow_mlops.ml.batch_inference import score

        source = self._read_from(context)
        output = self.form_path(context, "output") or output_folder(self.pipeline, self.batch, scope)
        return score(
            self.hook.store(),
            version,
            data=self.data,
            source=source,
            output=output,
            name=scope.window.key if scope.window else context["ti"].run_id,
            window=scope.window,
            files=self.hook.files(source, output),
            sql=self.hook.sql,
            allowed_imports=self.hook.allowed_imports,
            trusted_types=self.hook.trusted_types,
            verifier=self.hook.verifier(),
            log=self.log.info,
            rehearsal=not scope.promote,
            replay_rows=self.replay_rows,
            **more,
        )

    def _told(
        self,
        scope: RunScope,
        context: Context,
        version: Version,
        result: dict[str, Any],
        evidence: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Put what was scored on record, and return it.

        :param evidence: more for the record.
        """
        self.log.info("Scored %s rows with v%d into %s", f"{result['rows']:,}", version.number, result["output"])
        if said := result.get("rollout"):
            self.log.info("v%d (%s) served %s of them", said["version"], said["step"], f"{said['served']:,}")
        cost = {"cost": cost_so_far(context) | self.hook.price()}
        self.record_check(scope, "prediction", {**result, **cost, **(evidence or {})})
        trained_on = (version.record["snapshot"].get("window") or {}).get("end")
        if scope.window and trained_on:
            age = scope.window.end - Window.of(trained_on, scope.window.end).start
            self.emit(scope, "mlops.champion.age_days", age.total_seconds() / 86400)
        if scope.window is None and scope.promote:
            # Without a window there is no check to keep it in.
            run = context["ti"].run_id
            note = {"rows": result["rows"], "output": result["output"], "start": scope.start, "run_id": run}
            operation = self.operation(context, "prediction")
            self.hook.registry(self.pipeline).annotate(
                version.number, "prediction", {**note, **(evidence or {})}, op_id=operation
            )
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {
                **scope.event_extra(), "capture": result["capture"], "version": version.number,
            }  # fmt: skip
        return result
