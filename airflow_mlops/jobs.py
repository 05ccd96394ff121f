"""What jobs on Amazon SageMaker have in common, without AWS: their kinds, their names, and what their end means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.exceptions import (
    MLOpsError,
    PredictionError,
    PredictionUnavailable,
    TrainingError,
    TrainingUnavailable,
)

ENDED = ("Completed", "Failed", "Stopped")
RUNNING = ("InProgress", "Stopping")
_SLUG = re.compile(r"[^A-Za-z0-9]+")
_SLUG_LENGTH, _OPERATION_LENGTH = 30, 24  # a job's name has 63 characters at most
_PASSING = ("CapacityError", "InternalServerError", "ThrottlingException", "ServiceUnavailable")
"""How a FailureReason begins that says nothing about the job itself."""


@dataclass(frozen=True)
class JobKind:
    """One kind of job.

    :param name: as in CreateTrainingJob, TrainingJobName, DescribeTrainingJob.
    :param section: the key of the file that asks for it.
    :param rights: what the AWS connection may do.
    :param failed: raised where a retry does not help. :param unavailable: raised where it does.
    :param anew: what to do about a job that was stopped.
    """

    name: str
    section: str
    rights: str
    failed: type[MLOpsError]
    unavailable: type[MLOpsError]
    anew: str

    def name_of(self, job: Mapping[str, Any]) -> str:
        """The name of a job that was described."""
        return str(job[f"{self.name}JobName"])

    def status(self, job: Mapping[str, Any]) -> str:
        """How it stands: one of ``RUNNING`` and ``ENDED``."""
        return str(job[f"{self.name}JobStatus"])


TRAINING = JobKind(
    "Training",
    "train.sagemaker",
    "sagemaker:CreateTrainingJob, sagemaker:DescribeTrainingJob, sagemaker:StopTrainingJob, iam:PassRole for the "
    "job's role, and iam:GetRole where the role is given by its name",
    TrainingError,
    TrainingUnavailable,
    "clear the task to train anew",
)
TRANSFORM = JobKind(
    "Transform",
    "deploy.batch.sagemaker",
    "sagemaker:CreateModel, sagemaker:DeleteModel, sagemaker:CreateTransformJob, sagemaker:DescribeTransformJob, "
    "sagemaker:StopTransformJob, iam:PassRole for the job's role, and iam:GetRole where the role is given by its name",
    PredictionError,
    PredictionUnavailable,
    "clear the task to predict anew",
)


def job_stem(pipeline: str, operation: str) -> str:
    """What the names of all jobs of one operation begin with; the same for every try of a task.

    :param operation: the operation's id, hex digits.
    """
    slug = _SLUG.sub("-", pipeline).strip("-")[:_SLUG_LENGTH].strip("-")
    return f"{slug}-{operation[:_OPERATION_LENGTH]}"


def check_ended(kind: JobKind, job: Mapping[str, Any], *, limit: int | None = None) -> None:
    """Raise unless a job ended well.

    :param job: what its describe call tells.
    :param limit: seconds that it was allowed, if that is why it was stopped.
    :raises kind.unavailable: it has not ended, or failed for want of room or by SageMaker's own error.
    :raises kind.failed: it failed by itself, or was stopped.
    """
    name, status = kind.name_of(job), kind.status(job)
    if status == "Completed":
        return
    if status == "Failed":
        reason = str(job.get("FailureReason") or "no reason was given")
        message = f"the SageMaker job {name} failed: {reason}"
        if reason.startswith(_PASSING):
            raise kind.unavailable(message, hint=f"try again later, or take another {kind.section}.instance_type")
        group = f"/aws/sagemaker/{kind.name}Jobs"
        raise kind.failed(message, hint=f"its log is in CloudWatch: {group}, streams that begin with {name}/")
    if status == "Stopped" and limit is not None:
        section = kind.section.rpartition(".")[0]
        raise kind.failed(
            f"the SageMaker job {name} took longer than {limit:,} s and was stopped",
            hint=f"give {kind.section}.max_runtime, and {section}.resources.timeout where it is set, more time",
        )
    if status == "Stopped":
        raise kind.failed(f"the SageMaker job {name} was stopped", hint=kind.anew)
    raise kind.unavailable(f"the SageMaker job {name} has not ended: it is {status}", hint="the next try waits on")
