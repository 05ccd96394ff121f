"""Batch inference of a fleet: divide the rows by key, predict shards, publish the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.config.models import Batch, Data, Fleet
from airflow_mlops.exceptions import VersionNotFound
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section
from airflow_mlops.operators.cost import cost_up_to_here
from airflow_mlops.operators.fleet import max_active_tasks, slots_of
from airflow_mlops.operators.prediction import output_folder

if TYPE_CHECKING:
    from airflow.sdk import Context


class PredictPartitionOperator(MLOpsOperator):
    """Read the rows to predict once, divide them by key, and decide which model serves each key: all at one moment.

    A key is served by its own champion, else by that of its group, else by the one of all rows. Returns a list for the
    shards' tasks to be mapped over: ``{"plan", "shard", "label"}``.

    :param fleet: the ``fleet`` section as in YAML; ``data`` and ``batch`` (``deploy.batch``) likewise.
    :param skip_without_champion: skip (a scheduled run before the first training) instead of failing.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "source")

    def __init__(
        self,
        *,
        fleet: Fleet | Mapping[str, Any],
        data: Data | Mapping[str, Any],
        batch: Batch | Mapping[str, Any] | None = None,
        skip_without_champion: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fleet = section(Fleet, fleet)
        self.data = section(Data, data)
        self.skip_without_champion = skip_without_champion
        self.source = section(Batch, batch).source or self.data.source

    def work(self, scope: RunScope, context: Context) -> list[dict[str, Any]]:
        """Read, decide, divide, and write the plan."""
        from airflow_mlops.ml.data import read_batches
        from airflow_mlops.ml.fleet.serving import begin_prediction

        source, data = self.form_path(context, "source") or self.source, self.data
        if source is not None:
            data = data.model_copy(update={"source": source, "sql": None, "callable": None})
        batches = read_batches(
            data,
            files=self.hook.files(source),
            window=scope.window,
            sql=self.hook.sql,
            allowed_imports=self.hook.allowed_imports,
            target_optional=True,
        )
        try:
            plan = begin_prediction(
                self.hook.store(),
                self.hook.registry(self.pipeline),
                batches,
                self.fleet,
                id_column=data.id,
                slots=slots_of(max_active_tasks(context))[0],
                log=self.log.info,
            )
        except VersionNotFound as e:
            if self.skip_without_champion:
                raise AirflowSkipException(e.message) from None
            raise
        return [
            {"plan": plan.digest, "shard": number, "label": plan.label(number)} for number in range(len(plan.parts))
        ]


class PredictShardOperator(MLOpsOperator):
    """Predict the rows of one shard, each key by the model that serves it; a second try writes the same.

    A key whose rows cannot be predicted is a row of the outcome. Returns ``{"shard", "rows", "predicted", "keys",
    "files", "outcome", "plan"}``; ``files`` and ``outcome`` are digests.

    :param shard: an item of the list that :class:`PredictPartitionOperator` returned.
    :param data: the ``data`` section as in YAML.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "shard")

    def __init__(self, *, shard: Any, data: Data | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self.data = section(Data, data)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Predict the shard's rows."""
        from airflow_mlops.ml.fleet.predicting import predict_shard
        from airflow_mlops.ml.fleet.serving import ServingPlan
        from airflow_mlops.ml.fleet.shard import Trust

        store, plan = self.hook.store(), self.shard["plan"]
        result = predict_shard(
            store,
            self.hook.registry(self.pipeline),
            ServingPlan.load(store, plan),
            self.shard["shard"],
            data=self.data,
            trust=Trust(self.hook.allowed_imports, self.hook.trusted_types, self.hook.verifier()),
            log=self.log.info,
        )
        return result | {"plan": plan}


class PublishPredictionsOperator(MLOpsOperator):
    """Write the predictions of all shards in one atomic step, in the order of the rows, and keep the inputs.

    Returns ``{"version": None, "rows", "output", "capture", "newest", "sentence", "counts", "table"}``; ``capture`` is
    the digest of inputs and predictions, which monitoring reads, ``table`` that of what became of each key.

    :param shards: XCom of the mapped :class:`PredictShardOperator`.
    :param data: the ``data`` section as in YAML; ``batch`` (``deploy.batch``) likewise.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "shards")

    def __init__(
        self,
        *,
        shards: Any,
        data: Data | Mapping[str, Any],
        batch: Batch | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.shards = shards
        self.data = section(Data, data)
        self.batch = section(Batch, batch)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Join the shards, write, keep what monitoring reads."""
        from airflow_mlops.ml.fleet.predictions import publish
        from airflow_mlops.ml.fleet.serving import ServingPlan

        store, shards = self.hook.store(), list(self.shards)
        output = self.form_path(context, "output") or output_folder(self.pipeline, self.batch, scope)
        result = {"version": None} | publish(
            store,
            ServingPlan.load(store, shards[0]["plan"]),
            shards,
            id_column=self.data.id,
            output=output,
            name=scope.window.key if scope.window else context["ti"].run_id,
            window=scope.window,
            files=self.hook.files(output),
            rehearsal=not scope.promote,
            log=self.log.warning,
        )
        self.log.info("%s", result["sentence"])
        self.log.info("Written to %s", result["output"])
        self.record_check(scope, "prediction", result | {"cost": cost_up_to_here(context) | self.hook.price()})
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = scope.event_extra() | {
                "fleet": True, "capture": result["capture"], "sentence": result["sentence"],
            }  # fmt: skip
        return result
