"""Score rows with the champion in a batch transform job on Amazon SageMaker."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import ConfigError, CorruptObject, ObjectNotFound, PredictionError, PredictionUnavailable
from airflow_mlops.jobs import ENDED, TRANSFORM, job_stem
from airflow_mlops.operators.base import RunScope, run_scope
from airflow_mlops.operators.cost import cost_so_far, push_cost, start_meter, summed
from airflow_mlops.operators.job import JobOperator
from airflow_mlops.operators.prediction import BatchPredictOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.config.models import BatchSageMaker
    from airflow_mlops.hooks.sagemaker import TransformJobs
    from airflow_mlops.ml.frozen_rows import Plan
    from airflow_mlops.registry.registry import Version
    from airflow_mlops.triggers.sagemaker import TransformJobTrigger


class SageMakerPredictOperator(JobOperator, BatchPredictOperator):
    """As :class:`~airflow_mlops.operators.prediction.BatchPredictOperator`, but a batch transform job predicts.

    The rows are read, prepared by the version's feature code and frozen in the store; the job predicts what was
    frozen, and the task waits in the triggerer, without a worker slot. What the job says is matched with the rows
    and goes the way of any other prediction: output, capture, record. A job's name follows from the task: another
    try finds the job that runs, or has ended, where version, configuration and source are still the same.

    Returns the same, and ``job``, the job's name. A version that is rolling out is passed over.

    :param batch: the ``deploy.batch`` section as in YAML, with ``sagemaker``.
    :param poll_interval: seconds between looks at the job.
    """

    kind = TRANSFORM
    _before: Mapping[str, float] | None = None
    """What the task cost before it waited."""

    @property
    def _asked(self) -> BatchSageMaker:
        if self.batch.sagemaker is None:
            raise ConfigError("there is no deploy.batch.sagemaker", hint="give it, or use BatchPredictOperator")
        return self.batch.sagemaker

    def _open(self) -> TransformJobs:
        from airflow_mlops.hooks.sagemaker import TransformJobs

        return TransformJobs(self._conn_id)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Find the job or create it; use what it says if it has ended, else wait for it in the triggerer."""
        self._check_store()
        version, tried, _ = self._serving()
        if tried is not None:
            self.log.warning(
                "v%d is rolling out, and a job on SageMaker predicts with the champion alone: v%d serves all rows, and "
                "this run is no evidence for the rollout",
                tried.number,
                version.number,
            )
        jobs, of = self._jobs, self._made_from(scope, context, version)
        operation = self.operation(context, "predict")
        name, job, plan = self._newest(jobs, job_stem(self.pipeline, operation), of)
        self._running = name
        if job is None or plan is None:
            plan = self._create(jobs, name, of, scope, context, version)
            job = jobs.find(name)
        else:
            self.log.info("The SageMaker job %s of an earlier try is %s", name, TRANSFORM.status(job))
        if job is None or TRANSFORM.status(job) not in ENDED:
            self._wait(context, self._trigger(name, operation))
        return self._finish(scope, context, job, plan)

    def _made_from(self, scope: RunScope, context: Context, version: Version) -> str:
        """Names what the job predicts with and from; what was frozen from something else is of no use."""
        from airflow_mlops.store.content import canonical_json

        asked = self._asked.model_dump(mode="json", exclude={"price_per_hour", "max_runtime", "conn_id"})
        window = scope.window.to_dict() if scope.window else None
        made = {
            "version": version.number,
            "model": version.record["model"]["digest"],
            "data": self.data.model_dump(mode="json"),
            "source": self._read_from(context),
            "window": window,
            "asked": asked,
        }
        return hashlib.sha256(canonical_json(made)).hexdigest()

    def _newest(self, jobs: TransformJobs, stem: str, of: str) -> tuple[str, dict[str, Any] | None, Plan | None]:
        """The job of this operation that runs or has predicted, with its rows; else the next free name."""
        from airflow_mlops.ml.frozen_rows import Plan

        number = 1
        while (job := jobs.find(name := f"{stem}-{number}")) is not None:
            plan, status = Plan.load(self.hook.store(), self.pipeline, name), TRANSFORM.status(job)
            if plan is not None and plan.of == of and status in ("InProgress", "Completed"):
                return name, job, plan
            if plan is not None or status == "InProgress":
                self.log.info("The SageMaker job %s of an earlier try is %s, and of no use now", name, status)
                self._discard(jobs, name, stop=status == "InProgress")
            elif status in ENDED:
                self._clean(name)  # what was left where taking it away was broken off
            number += 1
        return name, None, None

    def _discard(self, jobs: TransformJobs, name: str, *, stop: bool = False) -> None:
        """Take away a job's model, and what it has read and written."""
        if stop:
            jobs.stop(name)
        jobs.delete_model(name)
        self._clean(name)

    def _create(
        self, jobs: TransformJobs, name: str, of: str, scope: RunScope, context: Context, version: Version
    ) -> Plan:
        from airflow_mlops.ml.batch_inference import scored_data
        from airflow_mlops.ml.data import read_batches
        from airflow_mlops.ml.frozen_rows import freeze
        from airflow_mlops.ml.sagemaker_batch import job_request, model_request
        from airflow_mlops.store import layout

        store, asked, source = self.hook.store(), self._asked, self._read_from(context)
        data = scored_data(self.data, source)
        batches = read_batches(
            data,
            files=self.hook.files(source),
            window=scope.window,
            sql=self.hook.sql,
            allowed_imports=self.hook.allowed_imports,
            target_optional=True,
        )
        plan = freeze(
            store,
            version,
            name,
            of=of,
            data=data,
            batches=batches,
            max_bytes=asked.max_payload_mb * 10**6,
            allowed_imports=self.hook.allowed_imports,
            trusted_types=self.hook.trusted_types,
            verifier=self.hook.verifier(),
        )
        prefix = f"{store.uri}/{layout.job_prefix(self.pipeline, name)}"
        model_uri = f"{store.uri}/{layout.job_model(self.pipeline, name)}"
        jobs.create(
            model_request(asked, name=name, plan=plan, model_uri=model_uri),
            job_request(asked, name=name, input_uri=f"{prefix}input/", output_uri=f"{prefix}output"),
        )
        self.log.info(
            "Created the SageMaker job %s: %s rows in %d part%s for v%d, on %d × %s%s",
            name,
            f"{plan.rows:,}",
            len(plan.parts),
            "" if len(plan.parts) == 1 else "s",
            version.number,
            asked.instance_count,
            asked.instance_type,
            f"; {url}" if (url := jobs.url(name)) else "",
        )
        return plan

    def _trigger(self, name: str, operation: str) -> TransformJobTrigger:
        from airflow_mlops.ml.sagemaker_batch import longest
        from airflow_mlops.triggers.sagemaker import TransformJobTrigger

        return TransformJobTrigger(
            name,
            self._conn_id,
            operation,
            pipeline=self.pipeline,
            max_seconds=longest(self._asked, self._timeout),
            once=True,
            poll_interval=self.poll_interval,
            mlops_conn_id=self.mlops_conn_id,
        )

    def execute_complete(
        self, context: Context, event: Any = None, cost: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """Use what a job that has ended says of the rows, or say why it says nothing.

        :param event: of the trigger; how the job stands is asked of SageMaker again.
        :param cost: of the task before it waited.
        :raises PredictionUnavailable: SageMaker could not be asked, or had no room; the next try finds the same job.
        """
        from airflow_mlops.ml.frozen_rows import Plan

        with self._errors():
            scope, meter = run_scope(context, self.history), start_meter(context)
            name = str(self._waited(context, event)["job"])
            job, plan = self._jobs.find(name), Plan.load(self.hook.store(), self.pipeline, name)
            if job is None or plan is None:
                what = "SageMaker does not know the job" if job is None else "the rows are gone of the SageMaker job"
                raise PredictionUnavailable(f"{what} {name} any more", hint="the next try predicts anew")
            self._before = cost
            result = self._finish(scope, context, job, plan)
            push_cost(context, meter, cost)
            return result

    def _finish(self, scope: RunScope, context: Context, job: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
        """Match what the job says with its rows, write it, and take away what it has read and written."""
        from airflow_mlops.ml.frozen_rows import Frozen
        from airflow_mlops.ml.sagemaker_batch import check_predicted, job_facts, longest
        from airflow_mlops.store import layout

        name, store = TRANSFORM.name_of(job), self.hook.store()
        if TRANSFORM.status(job) in ENDED:
            self._jobs.delete_model(name)  # whatever becomes of the answers: nothing asks it any more
        try:
            check_predicted(job, longest(self._asked, self._timeout))
            # The version that predicted, whichever is champion by now.
            version = self.hook.registry(self.pipeline).get(plan.version)
            outputs = f"{layout.job_prefix(self.pipeline, name)}output/"
            frozen = Frozen(store, version, name, plan, outputs=outputs, data=self.data)
            result = self._score(scope, context, version, frozen=frozen)
        except (PredictionError, CorruptObject, ObjectNotFound) as e:
            # Another try predicts anew; of one that goes on, nothing is taken away.
            if TRANSFORM.status(job) in ENDED:
                self._discard(self._jobs, name)
            if isinstance(e, ObjectNotFound):
                raise PredictionUnavailable(
                    f"some of the rows are gone of the SageMaker job {name}: {e}", hint="the next try predicts anew"
                ) from e
            raise
        facts = job_facts(job, self._asked, self.hook.currency) | {"packages": frozen.packages}
        self._tell_job(facts)
        spent = summed(cost_so_far(context), self._before) | self.hook.price()
        told = self._told(scope, context, version, result | {"job": name}, {"job": facts, "cost": spent})
        self._discard(self._jobs, name)
        return told

    def _tell_job(self, facts: Mapping[str, Any]) -> None:
        """Say in the log what the job took, and whether it predicted with what is installed here."""
        from airflow_mlops.ml.cost import amount, price
        from airflow_mlops.registry.artifacts import environment

        cost = facts["cost"]
        money = f", about {amount(price(cost), str(cost.get('currency') or ''))}" if price(cost) else ""
        took = f"{facts['seconds']:,.0f} s" if facts["seconds"] is not None else "a time that SageMaker does not tell"
        self.log.info(
            "The SageMaker job %s took %s on %d × %s%s (SageMaker bills that time on each instance)",
            facts["name"],
            took,
            facts["instances"],
            facts["instance_type"],
            money,
        )
        there, here = facts["packages"].get("scikit-learn"), environment()["packages"]["scikit-learn"]
        if there != here:
            self.log.warning(
                "The container predicted with scikit-learn %s, and here is %s: build its image with what the workers "
                "have",
                there,
                here,
            )
