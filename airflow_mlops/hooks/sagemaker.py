"""Training and batch transform jobs on Amazon SageMaker, by the amazon provider's own operators and hook."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.exceptions import ConfigError
from airflow_mlops.jobs import TRAINING, TRANSFORM, JobKind

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook

_BUSY = {
    "InternalFailure", "InternalServerError", "RequestTimeout", "ResourceLimitExceeded", "ServiceUnavailable",
    "Throttling", "ThrottlingException", "TooManyRequestsException",
}  # fmt: skip
_EXISTS = "ResourceInUse"
_UNKNOWN = ("ValidationException", "ValidationError", "ResourceNotFound")
"""What a describe of a job that does not exist is answered with: SageMaker's word, moto's, and the documented one."""


class Jobs:
    """Finds, creates and stops jobs of one kind through an AWS connection.

    :raises ConfigError: the amazon provider is not installed.
    """

    kind: ClassVar[JobKind]

    def __init__(self, conn_id: str) -> None:
        try:
            from airflow.providers.amazon.aws.operators import sagemaker
        except ImportError as e:
            raise ConfigError(
                f"{self.kind.section} needs Airflow's amazon provider, which is not installed",
                hint="pip install 'airflow-mlops[amazon]'",
            ) from e
        # Not to be executed: that waits as it likes, and gives a job whose name is taken another one.
        made = getattr(sagemaker, f"SageMaker{self.kind.name}Operator")
        self._operator: Any = made(task_id="job", config={}, aws_conn_id=conn_id)

    @property
    def hook(self) -> SageMakerHook:
        """The provider's hook; its client takes a second to make, and is made once."""
        hook: SageMakerHook = self._operator.hook
        return hook

    @property
    def _client(self) -> Any:
        return self.hook.get_conn()

    def find(self, name: str) -> dict[str, Any] | None:
        """What the describe call tells of a job; None: there is none of this name."""
        from botocore.exceptions import ClientError

        with self._errors(f"look for the SageMaker job {name}"):
            try:
                return self._describe(name)
            except ClientError as e:
                if e.response["Error"]["Code"] in _UNKNOWN:
                    return None
                raise

    def stop(self, name: str) -> None:
        """Stop a job; one that has ended, or was never created, is left as it is."""
        from botocore.exceptions import ClientError

        with self._errors(f"stop the SageMaker job {name}"):
            try:
                self._stop(name)
            except ClientError as e:
                if e.response["Error"]["Code"] not in _UNKNOWN:
                    raise

    def give_up(self, name: str) -> None:
        """Stop a job that nobody waits for any more."""
        self.stop(name)

    @abstractmethod
    def _describe(self, name: str) -> dict[str, Any]: ...

    @abstractmethod
    def _stop(self, name: str) -> None: ...

    @contextmanager
    def _creating(self, name: str, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The request as the provider prepares it; a job that is there is another try's, which was faster."""
        from botocore.exceptions import ClientError

        self._operator.config = config
        with self._errors(f"create the SageMaker job {name}"):
            try:
                self._operator.preprocess_config()
            except (TypeError, ValueError) as e:
                raise self.kind.failed(
                    f"cannot create the SageMaker job {name}: {e}", hint=f"correct {self.kind.section}.request"
                ) from e
            try:
                yield self._operator.config
            except ClientError as e:
                if e.response["Error"]["Code"] != _EXISTS:
                    raise

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn AWS's errors into ours: with a retry where the service has no room or does not answer."""
        from airflow.sdk.exceptions import AirflowException
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError
        from botocore.exceptions import ConnectionError as BotoConnectionError

        failed, unavailable, section = self.kind.failed, self.kind.unavailable, self.kind.section
        try:
            yield
        except ClientError as e:
            code, status = e.response["Error"]["Code"], e.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in _BUSY or status >= 500:
                raise unavailable(f"cannot {what} now: {e}", hint="the task is retried") from e
            denied = code.startswith(("AccessDenied", "UnrecognizedClient", "InvalidClientToken", "ExpiredToken"))
            hint = f"the AWS connection needs {self.kind.rights}" if denied else f"correct {section}"
            raise failed(f"cannot {what}: {e}", hint=hint) from e
        except ParamValidationError as e:
            raise failed(f"cannot {what}: {e}", hint=f"correct {section} and its `request`") from e
        except (BotoConnectionError, HTTPClientError) as e:
            raise unavailable(f"cannot {what} now: {e}", hint="check the AWS connection and the network") from e
        except (BotoCoreError, AirflowException) as e:
            raise failed(f"cannot {what}: {e}", hint="check the AWS connection: credentials and region") from e


class TrainingJobs(Jobs):
    """Training jobs; errors are :class:`TrainingError`, with a retry :class:`TrainingUnavailable`."""

    kind = TRAINING

    def _describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.hook.describe_training_job(name)
        return found

    def _stop(self, name: str) -> None:
        self._client.stop_training_job(TrainingJobName=name)

    def create(self, request: dict[str, Any]) -> None:
        """Create a job, unless there is one of its name.

        :param request: CreateTrainingJob; the name of a role becomes its ARN.
        :raises TrainingError: the request is refused. :raises TrainingUnavailable: there is no room now.
        """
        with self._creating(request["TrainingJobName"], dict(request)) as prepared:
            self.hook.create_training_job(prepared, wait_for_completion=False, print_log=False)


class TransformJobs(Jobs):
    """Batch transform jobs; errors are :class:`PredictionError`, with a retry :class:`PredictionUnavailable`.

    Each has a model in SageMaker of the same name, which is what its container gets.
    """

    kind = TRANSFORM

    def _describe(self, name: str) -> dict[str, Any]:
        return self.hook.describe_transform_job(name)

    def _stop(self, name: str) -> None:
        self._client.stop_transform_job(TransformJobName=name)

    def create(self, model: dict[str, Any], request: dict[str, Any]) -> None:
        """Create a job and its model, unless there is a job of its name; a model that was left is replaced.

        :param model: CreateModel; the name of a role becomes its ARN. :param request: CreateTransformJob.
        :raises PredictionError: a request is refused. :raises PredictionUnavailable: there is no room now.
        """
        from botocore.exceptions import ClientError

        self.delete_model(model["ModelName"])
        with self._creating(request["TransformJobName"], {"Model": model, "Transform": request}) as prepared:
            self.hook.create_model(prepared["Model"])
            try:
                self.hook.create_transform_job(prepared["Transform"], wait_for_completion=False)
            except ClientError as e:
                # Refused for certain; after an error of SageMaker's own there may be a job that needs its model.
                refused = e.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) < 500
                if refused and e.response["Error"]["Code"] != _EXISTS:
                    with suppress(ClientError):  # what it was refused for is what matters
                        self._client.delete_model(ModelName=model["ModelName"])
                raise

    def give_up(self, name: str) -> None:
        """Stop a job that nobody waits for any more, and delete its model."""
        self.stop(name)
        self.delete_model(name)

    def delete_model(self, name: str) -> None:
        """Delete a job's model, if there is one; a job that runs keeps what it has."""
        from botocore.exceptions import ClientError

        with self._errors(f"delete the SageMaker model {name}"):
            try:
                # Not the hook's own, which logs an error where there is none to delete.
                self._client.delete_model(ModelName=name)
            except ClientError as e:
                if e.response["Error"]["Code"] not in (*_UNKNOWN, "404"):
                    raise

    def url(self, name: str) -> str | None:
        """The job's page in AWS's console, where the partition has one that is known."""
        from airflow.providers.amazon.aws.links.sagemaker import SageMakerTransformJobLink

        domain = SageMakerTransformJobLink.get_aws_domain(self.hook.conn_partition)
        if domain is None:
            return None
        region = self.hook.conn_region_name
        return SageMakerTransformJobLink.format_str.format(aws_domain=domain, region_name=region, job_name=name)
