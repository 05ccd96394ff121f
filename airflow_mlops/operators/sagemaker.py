"""Train a candidate on Amazon SageMaker and register it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import ConfigError, ObjectNotFound, TrainingError, TrainingUnavailable
from airflow_mlops.jobs import ENDED, TRAINING, job_stem
from airflow_mlops.operators.base import RunScope, run_scope
from airflow_mlops.operators.cost import push_cost, start_meter
from airflow_mlops.operators.job import JobOperator
from airflow_mlops.operators.training import TrainOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.config.models import SageMaker, Train
    from airflow_mlops.hooks.sagemaker import TrainingJobs
    from airflow_mlops.ml.candidate import TrainingPart
    from airflow_mlops.triggers.sagemaker import TrainingJobTrigger


class SageMakerTrainOperator(JobOperator, TrainOperator):
    """As :class:`~airflow_mlops.operators.training.TrainOperator`, but the fit is a training job on SageMaker.

    The training part is written to the store, the job reads it there, and the task waits in the triggerer, without a
    worker slot. The model that comes back is checked, judged and registered like any other. A job's name follows from
    the task, its data, configuration and code: another try finds the job that runs, or has ended, and nothing is
    trained twice. A job that failed is followed by a new one only where the task is tried again.

    :param train: the ``train`` section as in YAML, with ``sagemaker``.
    :param poll_interval: seconds between looks at the job.
    """

    kind = TRAINING

    @property
    def _asked(self) -> SageMaker:
        if self.train.sagemaker is None:
            raise ConfigError("there is no train.sagemaker", hint="give it, or use TrainOperator")
        return self.train.sagemaker

    def _open(self) -> TrainingJobs:
        from airflow_mlops.hooks.sagemaker import TrainingJobs

        return TrainingJobs(self._conn_id)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Find the job or create it; register its model if it has ended, else wait for it in the triggerer."""
        from airflow_mlops.ml.candidate import made_from, training_part
        from airflow_mlops.ml.gates import check_gates

        self._check_store()
        check_gates(self.evaluate, self._folder)
        self.hook.verifier().check_signer(self.hook.signer())
        jobs = self._jobs
        train, features, _ = self._settled(context)
        part = training_part(
            self.hook.store(),
            self.snapshot,
            data=self.data,
            train_config=train,
            features=features,
            allowed_imports=self.hook.allowed_imports,
            log=self.log.info,
        )
        operation = self._registration(context, {"snapshot": self.snapshot, **made_from(self.data, train, features)})
        if (found := self._registered(operation)) is not None:
            return found
        name, job = self._newest(jobs, job_stem(self.pipeline, operation))
        self._running = name
        if job is None:
            self._create(jobs, name, train, part)
            job = jobs.find(name)
        else:
            self.log.info("The SageMaker job %s of an earlier try is %s", name, job["TrainingJobStatus"])
        if job is None or job["TrainingJobStatus"] == "InProgress":
            self._wait(context, self._trigger(name, operation))
        return self._finish(scope, context, job)

    def _registered(self, operation: str) -> dict[str, Any] | None:
        """What another try has registered."""
        registry = self.hook.registry(self.pipeline)
        entry = registry.log.find(operation)
        if entry is None:
            return None
        version = registry.get(entry.payload["version"])
        self.log.info("%s version %d was registered by an earlier try", self.pipeline, version.number)
        return self._result(version)

    def _create(self, jobs: TrainingJobs, name: str, train: Train, part: TrainingPart) -> None:
        from airflow_mlops.ml.sagemaker import job_request, write_input
        from airflow_mlops.store import layout

        store, key = self.hook.store(), layout.job_input(self.pipeline, name)
        write_input(store, key, part)
        request = job_request(
            train,
            self._asked,
            name=name,
            target=self.data.target,
            input_uri=f"{store.uri}/{key}",
            output_uri=f"{store.uri}/{layout.jobs_prefix(self.pipeline)}".rstrip("/"),
            timeout=self._timeout,
        )
        jobs.create(request)
        self.log.info("Created the SageMaker job %s on %s", name, self._asked.instance_type)

    def _newest(self, jobs: TrainingJobs, stem: str) -> tuple[str, dict[str, Any] | None]:
        """The job of this operation that runs or has left a model; else the next free name."""
        from airflow_mlops.store import layout

        number = 1
        while (job := jobs.find(name := f"{stem}-{number}")) is not None:
            status, output = job["TrainingJobStatus"], layout.job_output(self.pipeline, name)
            if status == "InProgress" or (status == "Completed" and self.hook.store().exists(output)):
                return name, job
            number += 1
        return name, None

    def _trigger(self, name: str, operation: str) -> TrainingJobTrigger:
        from airflow_mlops.triggers.sagemaker import TrainingJobTrigger

        return TrainingJobTrigger(name, self._conn_id, operation, once=True, poll_interval=self.poll_interval)

    def execute_complete(
        self, context: Context, event: Any = None, cost: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """Register the model of a job that has ended, or say why there is none.

        :param event: of the trigger; how the job stands is asked of SageMaker again.
        :param cost: of the task before it waited.
        :raises TrainingUnavailable: SageMaker could not be asked, or had no room; the next try finds the same job.
        """
        with self._errors():
            scope, meter = run_scope(context, self.history), start_meter(context)
            event = self._waited(context, event)
            job = str(event["job"])
            if (registered := self._registered(event["operation"])) is not None:
                return registered
            found = self._jobs.find(job)
            if found is None:
                raise TrainingUnavailable(f"SageMaker does not know the job {job} any more", hint="it is trained anew")
            result = self._finish(scope, context, found)
            push_cost(context, meter, cost)
            return result

    def _finish(self, scope: RunScope, context: Context, job: Mapping[str, Any]) -> dict[str, Any]:
        """Check and register the model of a job, and take away what it has read and written."""
        from airflow_mlops.ml.sagemaker import check_trained, job_facts

        name = job["TrainingJobName"]
        try:
            check_trained(job)
            train, record = self._candidate(context, name)
        except TrainingError:
            # Another try trains anew; of one that goes on, nothing is taken away.
            if job["TrainingJobStatus"] in ENDED:
                self._clean(name)
            raise
        if not name.startswith(job_stem(self.pipeline, self._registration(context, record))):
            raise TrainingUnavailable(
                f"the data, the configuration or the feature code changed while the SageMaker job {name} trained",
                hint="the next try trains with what there is now",
            )
        made = job_facts(job)
        record |= {"params": dict(train.params), "seconds": made["seconds"], "job": made}
        result = self._register(scope, context, record)
        self._note_cost(context, result["version"], made)
        self._clean(name)
        return result

    def _candidate(self, context: Context, name: str) -> tuple[Train, dict[str, Any]]:
        """How a job was trained, and the record of the model it left."""
        from airflow_mlops.ml.sagemaker import unpack_model

        train, features, facts = self._settled(context)
        with tempfile.TemporaryDirectory(prefix="mlops-job-") as folder:
            model = unpack_model(self._fetch(name, Path(folder)), Path(folder))
            record = self._trained(train, features, model_file=model)
        return train, record | facts

    def _fetch(self, name: str, folder: Path) -> Path:
        """The archive with the job's model, if it is not too large."""
        from airflow_mlops.registry.formats import MAX_BYTES
        from airflow_mlops.store import layout

        store, key = self.hook.store(), layout.job_output(self.pipeline, name)
        try:
            size = store.stat(key).size
        except ObjectNotFound as e:
            raise TrainingError(
                f"the SageMaker job {name} left nothing at {store.uri}/{key}",
                hint="the job's role must write below the store: s3:PutObject",
            ) from e
        if size > MAX_BYTES:
            raise TrainingError(
                f"the SageMaker job {name} left {size:,} bytes; the limit is {MAX_BYTES:,}",
                hint="train a smaller model, and leave nothing else in /opt/ml/model",
            )
        path = folder / "model.tar.gz"
        store.get_file(key, path)
        return path

    def _note_cost(self, context: Context, version: int, made: Mapping[str, Any]) -> None:
        """What the instance took; its processor time and memory are SageMaker's to know."""
        asked = self._asked
        price = {} if asked.price_per_hour is None else {"price_per_hour": asked.price_per_hour}
        note = {
            "task": f"SageMaker {made['instance_type']}",
            "wall_seconds": float(made["billed_seconds"] or 0),
            "cpu_seconds": 0.0,
            "peak_mb": 0.0,
            "run_id": context["ti"].run_id,
            **price,
            **({"currency": self.hook.currency} if price else {}),
        }
        operation = self.operation(context, "cost of the job", made["name"])
        self.hook.registry(self.pipeline).annotate(version, "cost", note, op_id=operation)
