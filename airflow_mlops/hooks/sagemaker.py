"""Training jobs on Amazon SageMaker, by the amazon provider's own operator and hook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import ConfigError, TrainingError, TrainingUnavailable

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook

RIGHTS = (
    "sagemaker:CreateTrainingJob, sagemaker:DescribeTrainingJob, sagemaker:StopTrainingJob, iam:PassRole for the job's "
    "role, and iam:GetRole where the role is given by its name"
)
_BUSY = {
    "InternalFailure", "InternalServerError", "RequestTimeout", "ResourceLimitExceeded", "ServiceUnavailable",
    "Throttling", "ThrottlingException", "TooManyRequestsException",
}  # fmt: skip
_EXISTS = "ResourceInUse"
_UNKNOWN = ("ValidationException", "ValidationError", "ResourceNotFound")
"""What a describe of a job that does not exist is answered with: SageMaker's word, moto's, and the documented one."""


class TrainingJobs:
    """Finds, creates and stops training jobs through an AWS connection.

    :raises ConfigError: the amazon provider is not installed.
    """

    def __init__(self, conn_id: str) -> None:
        try:
            from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator
        except ImportError as e:
            raise ConfigError(
                "train.sagemaker needs Airflow's amazon provider, which is not installed",
                hint="pip install 'airflow-mlops[amazon]'",
            ) from e
        # Not to be executed: that waits as it likes, and gives a job whose name is taken another one.
        self._operator = SageMakerTrainingOperator(task_id="job", config={}, aws_conn_id=conn_id)

    @property
    def hook(self) -> SageMakerHook:
        """The provider's hook; its client takes a second to make, and is made once."""
        return self._operator.hook

    def find(self, name: str) -> dict[str, Any] | None:
        """What DescribeTrainingJob tells of a job; None: there is none of this name."""
        from botocore.exceptions import ClientError

        with _errors(f"look for the SageMaker job {name}"):
            try:
                found: dict[str, Any] = self.hook.describe_training_job(name)
            except ClientError as e:
                if e.response["Error"]["Code"] in _UNKNOWN:
                    return None
                raise
            return found

    def create(self, request: dict[str, Any]) -> None:
        """Create a job, unless there is one of its name: another try of the task was faster.

        :param request: CreateTrainingJob; the name of a role becomes its ARN.
        :raises TrainingError: the request is refused. :raises TrainingUnavailable: there is no room now.
        """
        from botocore.exceptions import ClientError

        name = request["TrainingJobName"]
        self._operator.config = dict(request)
        with _errors(f"create the SageMaker job {name}"):
            try:
                self._operator.preprocess_config()
                self.hook.create_training_job(self._operator.config, wait_for_completion=False, print_log=False)
            except ClientError as e:
                if e.response["Error"]["Code"] != _EXISTS:
                    raise

    def stop(self, name: str) -> None:
        """Stop a job; one that has ended, or was never created, is left as it is."""
        from botocore.exceptions import ClientError

        with _errors(f"stop the SageMaker job {name}"):
            try:
                client: Any = self.hook.get_conn()
                client.stop_training_job(TrainingJobName=name)
            except ClientError as e:
                if e.response["Error"]["Code"] not in _UNKNOWN:
                    raise


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turn AWS's errors into ours: with a retry where the service has no room or does not answer."""
    from airflow.sdk.exceptions import AirflowException
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError
    from botocore.exceptions import ConnectionError as BotoConnectionError

    try:
        yield
    except ClientError as e:
        code, status = e.response["Error"]["Code"], e.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _BUSY or status >= 500:
            raise TrainingUnavailable(f"cannot {what} now: {e}", hint="the task is retried") from e
        denied = code.startswith(("AccessDenied", "UnrecognizedClient", "InvalidClientToken", "ExpiredToken"))
        hint = f"the AWS connection needs {RIGHTS}" if denied else "correct train.sagemaker"
        raise TrainingError(f"cannot {what}: {e}", hint=hint) from e
    except ParamValidationError as e:
        raise TrainingError(f"cannot {what}: {e}", hint="correct train.sagemaker and its `request`") from e
    except (BotoConnectionError, HTTPClientError) as e:
        raise TrainingUnavailable(f"cannot {what} now: {e}", hint="check the AWS connection and the network") from e
    except (BotoCoreError, AirflowException) as e:
        raise TrainingError(f"cannot {what}: {e}", hint="check the AWS connection: credentials and region") from e
