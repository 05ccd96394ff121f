"""Fire when a job on Amazon SageMaker has ended."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.jobs import RUNNING, TRAINING, TRANSFORM, JobKind
from airflow_mlops.triggers.base import PollingTrigger

if TYPE_CHECKING:
    from airflow_mlops.hooks.sagemaker import Jobs, TransformJobs
    from airflow_mlops.store.base import Store


class JobTrigger(PollingTrigger):
    """Waits for a job, however it ends; a task that a person stops while it waits stops its job.

    The event: ``{"version": the job's status, "job": its name, "operation"}``. Not the provider's own triggers: they
    need aiobotocore, which holds boto3 and botocore at versions of its own.

    :param job: the job's name.
    :param conn_id: the AWS connection.
    :param operation: id of the operation that the job is for; told again in the event.
    """

    kind: ClassVar[JobKind]

    def __init__(self, job: str, conn_id: str, operation: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.conn_id = conn_id
        self.operation = operation

    def arguments(self) -> dict[str, Any]:
        """Return ``job``, ``conn_id`` and ``operation``."""
        return {"job": self.job, "conn_id": self.conn_id, "operation": self.operation}

    @abstractmethod
    def open(self) -> Jobs:
        """The jobs of this kind."""

    @cached_property
    def _jobs(self) -> Jobs:
        return self.open()

    def of_error(self) -> dict[str, Any]:
        """Return ``job``: it may run on."""
        return {"job": self.job}

    def look(self) -> dict[str, Any] | None:
        """Ask SageMaker how the job stands."""
        return self.told(self.found())

    def found(self) -> dict[str, Any]:
        """What SageMaker tells of the job.

        :raises TrainingUnavailable, PredictionUnavailable: it does not know the job, maybe not yet.
        """
        job = self._jobs.find(self.job)
        if job is None:
            raise self.kind.unavailable(f"SageMaker does not know the job {self.job}", hint="the next look asks again")
        return job

    def told(self, job: dict[str, Any]) -> dict[str, Any]:
        """What of a job that was described goes into the event."""
        return {"version": self.kind.status(job), "job": self.job, "operation": self.operation}

    def is_news(self, found: dict[str, Any]) -> bool:
        """Whether the job has ended."""
        return found["version"] not in RUNNING

    async def on_kill(self) -> None:
        """Stop the job: nobody waits for it any more."""
        self.log.info("Stopping the SageMaker job %s", self.job)
        await asyncio.to_thread(lambda: self._jobs.give_up(self.job))


class TrainingJobTrigger(JobTrigger):
    """Waits for a training job."""

    kind = TRAINING

    def open(self) -> Jobs:
        """The training jobs."""
        from airflow_mlops.hooks.sagemaker import TrainingJobs

        return TrainingJobs(self.conn_id)


class TransformJobTrigger(JobTrigger):
    """Waits for a batch transform job, says how far it is, and stops it when it takes too long: SageMaker does not.

    :param pipeline: whose job it is; with it the parts that are done are counted.
    :param max_seconds: how long it may take from its creation.
    """

    kind = TRANSFORM

    def __init__(
        self, job: str, conn_id: str, operation: str = "", *, pipeline: str, max_seconds: float, **kwargs: Any
    ) -> None:
        super().__init__(job, conn_id, operation, **kwargs)
        self.pipeline = pipeline
        self.max_seconds = max_seconds
        self._last = ""

    def arguments(self) -> dict[str, Any]:
        """Return ``job``, ``conn_id``, ``operation``, ``pipeline`` and ``max_seconds``."""
        return {**super().arguments(), "pipeline": self.pipeline, "max_seconds": self.max_seconds}

    def open(self) -> TransformJobs:
        """The batch transform jobs."""
        from airflow_mlops.hooks.sagemaker import TransformJobs

        return TransformJobs(self.conn_id)

    def look(self) -> dict[str, Any] | None:
        """Ask SageMaker how the job stands, and stop one that is late."""
        found = self.found()
        took = (datetime.now(UTC) - found["CreationTime"]).total_seconds()
        status = self.kind.status(found)
        if status == "InProgress":
            self._tell(status)
            if took >= self.max_seconds:
                self.log.warning("The SageMaker job %s takes longer than %.0f s: stopping it", self.job, took)
                self._jobs.stop(self.job)
        return self.told(found)

    @cached_property
    def _store(self) -> Store:
        from airflow_mlops.hooks.mlops import MLOpsHook

        return MLOpsHook(self.mlops_conn_id).store()

    def _tell(self, status: str) -> None:
        from airflow_mlops.store import layout

        prefix = layout.job_prefix(self.pipeline, self.job)
        try:
            done = sum(key.endswith(".out") for key in self._store.list(f"{prefix}output/"))
            parts = sum(1 for _ in self._store.list(f"{prefix}input/"))
            said = f"{done} of {parts} parts are done"
        except MLOpsError as e:
            # No reason to give up waiting.
            said = f"how far it is cannot be seen: {e.message}"
        if said != self._last:
            self.log.info("The SageMaker job %s is %s: %s", self.job, status, said)
            self._last = said
