"""``train``: how a candidate is made."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, StrictStr, model_validator

from airflow_mlops.config.models.base import Model, Resources
from airflow_mlops.config.models.sagemaker import Image, SageMakerJob
from airflow_mlops.config.types import CallablePath, DottedPath, PositiveDuration, refuse

SET_HERE = (
    "TrainingJobName", "AlgorithmSpecification", "HyperParameters", "InputDataConfig", "OutputDataConfig",
    "ResourceConfig", "RoleArn", "StoppingCondition",
)  # fmt: skip
"""Fields of SageMaker's CreateTrainingJob that follow from the rest of the file."""

RESERVED = ("seed", "target")
"""Hyperparameters that every job gets."""

_MOST_HYPERPARAMETERS = 100  # of SageMaker's own limits, as the two below
_LONGEST_NAME, _LONGEST_VALUE = 256, 2500


class Search(Model):
    """Search over hyperparameters by cross-validation on the training part."""

    strategy: Literal["random", "grid"] = Field("random", description="scikit-learn's randomised or grid search.")
    n_iter: Annotated[StrictInt, Field(ge=1)] = Field(10, description="Trials of the random search.")
    metric: StrictStr | None = Field(None, description="A scikit-learn scorer; default: the first of evaluate.metrics.")
    cv: Annotated[StrictInt, Field(ge=2)] = Field(3, description="Folds.")
    space: Annotated[dict[StrictStr, list[Any]], Field(min_length=1)] = Field(description="parameter: [values]")


class SageMaker(SageMakerJob):
    """A training job on Amazon SageMaker, in a container of one's own."""

    SET_HERE = SET_HERE

    image: Image = Field(
        description="Address of the container's image. It gets /opt/ml/input/data/train/train.parquet and the "
        "hyperparameters, and writes model.skops to /opt/ml/model."
    )
    max_runtime: PositiveDuration = Field("1d", description="SageMaker stops a job that trains longer; at most 28d.")
    volume_gb: Annotated[StrictInt, Field(ge=1)] = Field(30, description="Disk of the instance.")
    request: dict[StrictStr, Any] = Field(
        default_factory=dict, description="Further fields of CreateTrainingJob, such as VpcConfig and Tags."
    )


def hyperparameters(params: dict[str, Any]) -> dict[str, str]:
    """The parameters as SageMaker takes them: all text, what is none as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()}


def _limits(params: dict[str, Any]) -> dict[str, bool]:
    told = hyperparameters(params)
    return {
        "`params` of a SageMaker job need no seed and target: it gets them": any(name in told for name in RESERVED),
        f"`params` of a SageMaker job are {_MOST_HYPERPARAMETERS - len(RESERVED)} at most": (
            len(told) > _MOST_HYPERPARAMETERS - len(RESERVED)
        ),
        f"`params` of a SageMaker job: names have {_LONGEST_NAME} characters at most, values {_LONGEST_VALUE}": (
            any(len(name) > _LONGEST_NAME or len(value) > _LONGEST_VALUE for name, value in told.items())
        ),
    }


class Train(Model):
    """How the candidate is made: exactly one of estimator, callable, command, sagemaker."""

    estimator: DottedPath | None = Field(None, description="Any scikit-learn estimator by its dotted name.")
    params: dict[StrictStr, Any] = Field(
        default_factory=dict, description="Arguments of the estimator or callable, hyperparameters of the job."
    )
    search: Search | None = Field(None, description="Hyperparameter search.")
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] = Field(7, description="Seeds split, search and estimator.")
    callable: CallablePath | None = Field(
        None, description="module:function(X, y, *, seed, **params) that returns a fitted scikit-learn estimator."
    )
    command: Annotated[StrictStr, Field(min_length=1)] | None = Field(
        None,
        description=(
            "A script, unchanged; {train}, {model_dir} and {seed} are replaced. It writes model.skops to {model_dir}."
        ),
    )
    sagemaker: SageMaker | None = Field(None, description="A training job on Amazon SageMaker; the store is on S3.")
    window: PositiveDuration | None = Field(
        None,
        description="Train on the latest rows of the training part only, so much before the newest one: 60d; needs "
        "`data.timestamp`. Default: all of it.",
    )
    resources: Resources | None = Field(None, description="For the training task.")

    @model_validator(mode="after")
    def _one_way(self) -> Train:
        given = sum(x is not None for x in (self.estimator, self.callable, self.command, self.sagemaker))
        refuse(
            {
                "give exactly one of `estimator`, `callable`, `command` and `sagemaker`": given != 1,
                "`search` needs `estimator`": self.search is not None and self.estimator is None,
                "`params` are for `estimator` and `callable`; write a command's arguments into it": (
                    self.command is not None and bool(self.params)
                ),
                **(_limits(self.params) if self.sagemaker is not None else {}),
            }
        )
        return self

    @property
    def made_by(self) -> str:
        """What makes the model, as the record of a version says it."""
        image = f"SageMaker: {self.sagemaker.image}" if self.sagemaker is not None else ""
        return self.estimator or self.callable or self.command or image
