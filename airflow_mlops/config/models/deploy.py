"""``deploy``: how a champion is used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictFloat, StrictInt, StrictStr, field_validator, model_validator

from airflow_mlops.config.models.base import Model, Resources
from airflow_mlops.config.models.sagemaker import Image, SageMakerJob, not_set_here
from airflow_mlops.config.types import Cron, Rollout, Template

_OF_THE_MODEL = ("ModelName", "PrimaryContainer", "Containers", "InferenceExecutionConfig", "ExecutionRoleArn")
"""Fields of SageMaker's CreateModel that follow from the rest of the file."""

_MOST_AT_ONCE_MB = 100  # SageMaker's own limit


class BatchSageMaker(SageMakerJob):
    """Batch inference in a batch transform job on Amazon SageMaker, in a container with this package."""

    SET_HERE = (
        "TransformJobName", "ModelName", "BatchStrategy", "MaxPayloadInMB", "TransformInput", "TransformOutput",
        "TransformResources", "DataProcessing",
    )  # fmt: skip

    image: Image = Field(
        description="Address of the container's image: `python -m airflow_mlops.ml.transform_server` is what it runs."
    )
    instance_count: Annotated[StrictInt, Field(ge=1)] = Field(
        1, description="How many instances share the parts of the rows."
    )
    max_payload_mb: Annotated[StrictInt, Field(ge=1, le=_MOST_AT_ONCE_MB)] = Field(
        32, description="How large a part of the rows is at most; a part has 100,000 rows at most too."
    )
    request: dict[StrictStr, Any] = Field(
        default_factory=dict, description="Further fields of CreateTransformJob, such as ModelClientConfig and Tags."
    )
    model_request: dict[StrictStr, Any] = Field(
        default_factory=dict, description="Further fields of CreateModel, such as VpcConfig and Tags."
    )

    @model_validator(mode="after")
    def _all_requests_fit(self) -> BatchSageMaker:
        at_once = self.request.get("MaxConcurrentTransforms")
        if isinstance(at_once, int) and at_once * self.max_payload_mb > _MOST_AT_ONCE_MB:
            raise ValueError(
                f"`request.MaxConcurrentTransforms` ({at_once}) times `max_payload_mb` ({self.max_payload_mb}) is more "
                f"than the {_MOST_AT_ONCE_MB} MB that SageMaker sends at once"
            )
        return self

    @field_validator("model_request")
    @classmethod
    def _not_of_the_model(cls, value: dict[str, Any]) -> dict[str, Any]:
        return not_set_here(value, _OF_THE_MODEL)


class Batch(Model):
    """Batch inference with the champion."""

    source: Template | None = Field(None, description="Rows to score; default: data.source.")
    output: StrictStr | None = Field(
        None, description="Folder or URI for the predictions; default: predictions/ in the data root."
    )
    schedule: Cron | None = Field(None, description="When to score (level 1).")
    sagemaker: BatchSageMaker | None = Field(
        None, description="Predict in a batch transform job on Amazon SageMaker; the store is on S3."
    )
    resources: Resources | None = Field(None, description="For the prediction task.")


class StepVerdict(Model):
    """How each step of a rollout is judged, by the windows that were scored in it."""

    min_rows: Annotated[StrictInt, Field(ge=30)] = Field(
        200, description="With fewer rows (that have an outcome, where `monitor.labels` tells of them) it waits."
    )
    max_windows: Annotated[StrictInt, Field(ge=1)] = Field(
        6, description="How many windows a step may take; its looks share one error probability."
    )
    on_timeout: Literal["rollback", "keep"] = Field(
        "rollback", description="After them, undecided: the version falls, or stays at its step until a person decides."
    )
    max_shift: Annotated[StrictFloat, Field(gt=0)] = Field(
        0.5,
        description="Without `monitor.labels`: how far its predictions may be from the champion's (Wasserstein "
        "distance in standard deviations).",
    )
    max_slowdown: Annotated[StrictFloat, Field(gt=1)] = Field(
        10.0, description="It falls when it takes more than this many times the champion's time for the same rows."
    )


class Deploy(Model):
    """How a promoted model is used."""

    batch: Batch = Field(default_factory=Batch, description="Batch inference.")
    rollout: Rollout | None = Field(
        None,
        description="Steps from candidate to champion: any of `shadow` and rising `{canary: share}`, then `full`; "
        "default: at level 2 [shadow, {canary: 0.1}, full], without `data.id` [shadow, full], below it [full].",
    )
    verdict: StepVerdict = Field(default_factory=StepVerdict, description="How a rollout's step is judged (level 2).")
