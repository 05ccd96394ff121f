"""What operators share that give their work to a job on Amazon SageMaker."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow_mlops.exceptions import ConfigError, MLOpsError
from airflow_mlops.jobs import JobKind
from airflow_mlops.operators.base import MLOpsOperator
from airflow_mlops.operators.cost import cost_so_far

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.config.models.sagemaker import SageMakerJob
    from airflow_mlops.hooks.sagemaker import Jobs
    from airflow_mlops.triggers.sagemaker import JobTrigger


class JobOperator(MLOpsOperator):
    """Starts a job, waits for it in the triggerer, without a worker slot, and uses what it left.

    :param poll_interval: seconds between looks at the job.
    """

    kind: ClassVar[JobKind]

    def __init__(self, *, poll_interval: float = 30.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.poll_interval = poll_interval
        self._running: str | None = None

    @property
    @abstractmethod
    def _asked(self) -> SageMakerJob:
        """The section of the file that asks for the job."""

    @abstractmethod
    def _open(self) -> Jobs:
        """The jobs of this kind."""

    @cached_property
    def _jobs(self) -> Any:
        return self._open()

    @property
    def _conn_id(self) -> str:
        return self._asked.conn_id or self.hook.aws_conn_id

    def _check_store(self) -> None:
        if not self.hook.store_uri.startswith("s3://"):
            raise ConfigError(
                f"{self.kind.section} needs a store on S3, which SageMaker can read; this one is {self.hook.store_uri}",
                hint="set [mlops] store to an s3:// URI",
            )

    def _wait(self, context: Context, trigger: JobTrigger) -> NoReturn:
        # `dag.test()` loses what is given here: what matters is told by the event.
        self.defer(trigger=trigger, method_name="execute_complete", kwargs={"cost": cost_so_far(context)})

    def _waited(self, context: Context, event: Any) -> Mapping[str, Any]:
        """The event of a wait that did not break off; its job is from here on that of this try.

        :raises MLOpsError: SageMaker could not be asked; the next try finds the same job. Where there is none, the job
            is stopped.
        """
        if not isinstance(event, dict) or event.get("status") != "ok":
            said = event.get("message") if isinstance(event, dict) else event
            if isinstance(event, dict) and event.get("job") and not _another_try(context):
                self._leave(str(event["job"]))
            raise self.kind.unavailable(
                f"waiting for the SageMaker job broke off: {said}", hint="the next try waits on"
            )
        self._running = str(event["job"])
        return event

    def _leave(self, name: str) -> None:
        """Stop a job that no other try will find."""
        try:
            self._jobs.give_up(name)
        except MLOpsError as e:
            self.log.error("The SageMaker job %s may run on, and nobody waits for it: %s", name, e)
        else:
            self.log.warning("The SageMaker job %s is stopped, as no other try waits for it", name)

    def _clean(self, name: str) -> None:
        """Delete what the job has read and written: its plan first, without which nobody takes it for whole."""
        from airflow_mlops.store import layout

        store, prefix = self.hook.store(), layout.job_prefix(self.pipeline, name)
        plan = layout.job_plan(self.pipeline, name)
        for key in sorted(store.list(prefix), key=lambda key: key != plan):
            store.delete(key)

    def on_kill(self) -> None:
        """Stop the job of this try; one that has ended is left as it is."""
        if self._running is not None:
            self.log.info("Stopping the SageMaker job %s", self._running)
            self._jobs.give_up(self._running)


def _another_try(context: Context) -> bool:
    ti = context["ti"]
    return int(ti.try_number) <= int(getattr(ti, "max_tries", 0) or 0)
