"""``train``: how a candidate is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, StrictStr, model_validator

from airflow_mlops.config.models.base import Model, Resources
from airflow_mlops.config.types import CallablePath, DottedPath, PositiveDuration, refuse


class Search(Model):
    """Search over hyperparameters by cross-validation on the training part."""

    strategy: Literal["random", "grid"] = Field("random", description="scikit-learn's randomised or grid search.")
    n_iter: Annotated[StrictInt, Field(ge=1)] = Field(10, description="Trials of the random search.")
    metric: StrictStr | None = Field(None, description="A scikit-learn scorer; default: the first of evaluate.metrics.")
    cv: Annotated[StrictInt, Field(ge=2)] = Field(3, description="Folds.")
    space: Annotated[dict[StrictStr, list[Any]], Field(min_length=1)] = Field(description="parameter: [values]")


class Train(Model):
    """How the candidate is made: exactly one of estimator, callable, command."""

    estimator: DottedPath | None = Field(None, description="Any scikit-learn estimator by its dotted name.")
    params: dict[StrictStr, Any] = Field(default_factory=dict, description="Arguments of the estimator or callable.")
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
    window: PositiveDuration | None = Field(
        None,
        description="Train on the latest rows of the training part only, so much before the newest one: 60d; needs "
        "`data.timestamp`. Default: all of it.",
    )
    resources: Resources | None = Field(None, description="For the training task.")

    @model_validator(mode="after")
    def _one_way(self) -> Train:
        given = sum(x is not None for x in (self.estimator, self.callable, self.command))
        refuse(
            {
                "give exactly one of `estimator`, `callable` and `command`": given != 1,
                "`search` needs `estimator`": self.search is not None and self.estimator is None,
                "`params` are for `estimator` and `callable`; write a command's arguments into it": (
                    self.command is not None and bool(self.params)
                ),
            }
        )
        return self
