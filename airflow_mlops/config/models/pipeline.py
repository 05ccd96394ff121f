"""The whole file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictStr, model_validator

from airflow_mlops.config.models.base import Model, Resources
from airflow_mlops.config.models.dag import Dag
from airflow_mlops.config.models.data import Data, Features, Retention, Validate
from airflow_mlops.config.models.deploy import Deploy
from airflow_mlops.config.models.evaluate import Approve, Evaluate
from airflow_mlops.config.models.experiment import Experiment
from airflow_mlops.config.models.fleet import Fleet
from airflow_mlops.config.models.monitor import Monitor, Retrain, Skew
from airflow_mlops.config.models.notify import Notify
from airflow_mlops.config.models.train import Train
from airflow_mlops.config.types import Level, refuse, whole

_NO_DATA = Data(source="none", target="none")
_NO_TRAIN = Train(estimator="none.None")
"""What stands where an experiment calls a function and there is no model."""

OF_A_MODEL = (
    "data", "validate_", "features", "train", "evaluate", "approve", "deploy", "monitor", "retrain", "retention",
    "task",
)  # fmt: skip


class PipelineConfig(Model):
    """One ML pipeline."""

    schema_: Annotated[Literal[1], BeforeValidator(whole)] = Field(
        1, alias="schema", description="Version of this vocabulary."
    )
    pipeline: Annotated[StrictStr, Field(pattern=r"^[A-Za-z][A-Za-z0-9_\-]{0,99}$")] = Field(
        description="Name; the DAG ids start with it."
    )
    level: Level = Field(
        description="0 manual, 1 continuous training, 2 CI/CD of the pipeline; or in another model's words: "
        "{microsoft: 2}, {aws: repeatable}."
    )
    description: StrictStr | None = Field(
        None, description="What the model is for; shown on the DAGs and the model card."
    )
    owner: StrictStr = Field("airflow", description="Who answers for it.")
    task: Literal["classification", "regression"] | None = Field(
        None, description="Default: follows from the estimator."
    )
    dag: Dag = Field(default_factory=Dag, description="Settings of the DAGs.")
    resources: Resources | None = Field(None, description="For every task; a section's own resources go before.")
    data: Data = Field(description="What a run reads.")
    validate_: Validate = Field(default_factory=Validate, alias="validate", description="Checks of the data.")
    features: Features | None = Field(None, description="Feature code.")
    train: Train = Field(description="How a candidate is made.")
    fleet: Fleet | None = Field(None, description="One model for each value of a column, in one set of DAGs.")
    experiment: Experiment | None = Field(None, description="Which variants of it are tried; level 2.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="How it is judged.")
    approve: Approve = Field(default_factory=Approve, description="A person's yes.")
    deploy: Deploy = Field(default_factory=Deploy, description="How it is used.")
    monitor: Monitor | None = Field(None, description="What is watched; level 1.")
    retrain: Retrain | None = Field(None, description="What starts training; level 1.")
    retention: Retention | None = Field(
        None, description="When old rows are given up; never those of the champion and the one before."
    )
    notify: Notify = Field(default_factory=Notify, description="Who is told.")

    @property
    def rollout(self) -> tuple[str | dict[str, float], ...]:
        """The steps of a rollout, the last one ``full``: what the file says, or the default of its level."""
        if self.deploy.rollout is not None:
            return tuple(self.deploy.rollout)
        if self.level < 2 or self.fleet is not None:
            return ("full",)
        return ("shadow", {"canary": 0.1}, "full") if self.data.id is not None else ("shadow", "full")

    @property
    def experiment_after(self) -> int:
        """After how many candidates or windows in vain an experiment is asked for."""
        return (self.retrain.experiment_after if self.retrain else None) or 3

    @property
    def has_model(self) -> bool:
        """Whether there is a model; an experiment on a callable alone has neither data nor training."""
        return self.experiment is None or self.experiment.callable is None

    @model_validator(mode="before")
    @classmethod
    def _without_model(cls, given: Any) -> Any:
        asked = given.get("experiment") if isinstance(given, dict) else None
        if isinstance(asked, dict) and asked.get("callable"):
            return {"data": _NO_DATA, "train": _NO_TRAIN, **given}
        return given

    @property
    def _skew(self) -> Skew | None:
        return self.monitor.skew if self.monitor is not None else None

    @model_validator(mode="after")
    def _level_has_what_it_needs(self) -> PipelineConfig:
        refuse({"`experiment` needs `level: 2`": self.level < 2 and self.experiment is not None})
        if not self.has_model:
            absent = {"data": self.data is _NO_DATA, "train": self.train is _NO_TRAIN}
            given = [k for k in OF_A_MODEL if k in self.model_fields_set and not absent.get(k)]
            refuse({f"`{k.rstrip('_')}` is of a model, and `experiment.callable` has none": True for k in given})
            return self
        old = [c.window for c in self.experiment.candidates if c.window] if self.experiment else []
        watched = set(self.retrain.when if self.retrain else ()) & {"drift", "performance", "staleness"}
        no_start = self.retrain is not None and not self.retrain.schedule and not self.retrain.when
        by_person = "needs `level: 1`; level 0 is started by a person"
        private = {
            f"`evaluate.gates.{i}` slices by {column}, which `data.private` lists: a report would show its values": True
            for i, gate in enumerate(self.evaluate.gates)
            for column in gate.columns
            if column in self.data.private
        }
        steps = self.deploy.rollout or ()
        blocked = self.evaluate.block not in (None, "none")
        refuse(
            {
                "`evaluate.block` is a duration and needs `data.timestamp`": blocked and self.data.timestamp is None,
                "`evaluate.block` cannot be a duration with `split.by: group`: its groups are the blocks": blocked
                and self.data.split.by == "group",
                **private,
                "`validate.engine: sql` asks the database of `data.sql`, and the data comes from elsewhere": (
                    self.validate_.engine == "sql" and self.data.sql is None
                ),
                "`experiment` tries its variants in tasks here, and `train.sagemaker` trains elsewhere: give one of "
                "them": self.experiment is not None and self.train.sagemaker is not None,
                "`deploy.batch.sagemaker` predicts with one version; give `deploy.rollout: [full]`": (
                    self.deploy.batch.sagemaker is not None and len(self.rollout) > 1
                ),
                "`train.window` needs `data.timestamp`": self.train.window is not None and self.data.timestamp is None,
                "`experiment.candidates` with a `window` need `data.timestamp`": bool(old)
                and self.data.timestamp is None,
                f"`monitor` {by_person}": self.level == 0 and self.monitor is not None,
                f"`retrain` {by_person}": self.level == 0 and self.retrain is not None,
                f"`deploy.batch.schedule` {by_person}": self.level == 0 and self.deploy.batch.schedule is not None,
                f"`data.watch` {by_person}": self.level == 0 and self.data.watch is not None,
                "`retrain.experiment_after` needs `level: 2`": self.level == 1
                and self.retrain is not None
                and self.retrain.experiment_after is not None,
                "`retrain.experiment_after` needs drift, performance or staleness in `retrain.when`": self.level == 2
                and self.retrain is not None
                and self.retrain.experiment_after is not None
                and not watched,
                "`deploy.rollout` needs `level: 2`; below it a version that passes is champion at once": self.level < 2
                and len(steps) > 1,
                "`deploy.verdict` needs `level: 2` and steps before `full` in `deploy.rollout`": (
                    "verdict" in self.deploy.model_fields_set and len(self.rollout) == 1
                ),
                "`deploy.rollout` with a canary needs `data.id`: it says whose predictions the version makes": (
                    self.data.id is None and any(isinstance(step, dict) for step in steps)
                ),
            }
        )
        self._fleet_can_do_it()
        if self.level == 0:
            return self
        refuse(
            {
                f"`level: {self.level}` needs `retrain`: at least a `schedule` or `when` in it": self.retrain is None,
                "`retrain` needs a `schedule` or `when` in it": no_start,
                f"`level: {self.level}` needs `evaluate.gates`: they decide about promotion": not self.evaluate.gates,
                f"`retrain.when: [{', '.join(sorted(watched))}]` needs `monitor`": (
                    bool(watched) and self.monitor is None
                ),
                "`retrain.when: [performance]` needs `monitor.labels`": (
                    "performance" in watched and self.monitor is not None and self.monitor.labels is None
                ),
                "`monitor.labels` needs `data.id`: outcomes are joined to predictions by it": self.monitor is not None
                and self.monitor.labels is not None
                and self.data.id is None,
                "`monitor.labels.join_on` is the target: outcomes are joined by a column that names the row": (
                    self.monitor is not None
                    and self.monitor.labels is not None
                    and self.monitor.labels.join_on == self.data.target
                ),
                "`monitor.skew` needs `data.id`: served rows are joined to replayed ones by it": self._skew is not None
                and self.data.id is None,
                "`monitor.skew` needs `source`: private columns are not kept with what was scored, and the feature "
                "code may need them": self._skew is not None
                and self._skew.source is None
                and bool(self.data.private)
                and self.features is not None,
                "`data.watch` needs `retrain.when: [new_data]`": self.data.watch is not None
                and self.retrain is not None
                and "new_data" not in self.retrain.when,
                "`retrain.confirm` needs drift, performance or staleness in `retrain.when`": (
                    self.retrain is not None and self.retrain.confirm is not None and not watched
                ),
                "`retrain.when: [staleness]` needs `monitor.max_age`": (
                    "staleness" in watched and self.monitor is not None and self.monitor.max_age is None
                ),
            }
        )
        return self

    def _fleet_can_do_it(self) -> None:
        """Refuse what is made for one model."""
        if self.fleet is None:
            return
        alone = [i for i, g in enumerate(self.evaluate.gates) if g.metric is None or g.columns]
        roles = {self.data.target: "target", self.data.id: "id", self.data.timestamp: "timestamp"}
        refuse(
            {
                "`fleet` trains an `estimator`, no callable, command or SageMaker job; it may be a class of your own": (
                    self.train.estimator is None
                ),
                "`fleet` predicts in tasks here, and `deploy.batch.sagemaker` elsewhere": (
                    self.deploy.batch.sagemaker is not None
                ),
                "`fleet` takes no `train.window`; use `data.window`": self.train.window is not None,
                "`fleet` takes no `experiment`": self.experiment is not None,
                "`validate.engine: sql` is for one model; of a fleet each key is judged by its rows in the snapshot": (
                    self.validate_.engine == "sql"
                ),
                "`validate.labels.max_rate_change` compares with one champion, and a fleet has one for each key": (
                    self.validate_.labels.max_rate_change is not None
                ),
                **self._watched_alone(),
                "`fleet` takes no steps before `full` in `deploy.rollout`": len(self.rollout) > 1,
                **{
                    f"`evaluate.gates.{i}` is for one model; a fleet judges each key by a `metric`, alone or `versus: "
                    "champion`": True
                    for i in alone
                },
                **{
                    f"`fleet.key` names {column}, which is `data.{roles[column]}`": True
                    for column in self.fleet.columns
                    if column in roles
                },
                **{
                    f"`fleet.key` names {column}, which `data.private` lists: keys are shown": True
                    for column in [*self.fleet.columns, self.fleet.parent]
                    if column in self.data.private
                },
            }
        )

    def _watched_alone(self) -> dict[str, bool]:
        """What of ``monitor`` is made for one model."""
        if self.monitor is None:
            return {}
        drift, performance = self.monitor.drift, self.monitor.performance
        asks = self.retrain is not None and self.retrain.experiment_after is not None
        return {
            "`fleet` has no `monitor.skew` in this version": self.monitor.skew is not None,
            "`fleet` has no `monitor.performance.estimate` in this version": performance.estimate,
            "`monitor.drift.engine: evidently` has no test; of a fleet's keys thousands would alarm by chance": (
                drift.engine == "evidently"
            ),
            "`retrain.experiment_after` asks for an experiment, and a fleet has none": asks,
            "`monitor.drift.multivariate` is for one model": drift.multivariate,
            "`monitor.drift.correction` is for one model; over the keys of a fleet it is Benjamini and Hochberg's": (
                "correction" in drift.model_fields_set
            ),
        }
