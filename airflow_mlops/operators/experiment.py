"""Try variants: plan the trials, run each in a task of its own, choose the best, train it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException, AirflowTaskTimeout

from airflow_mlops.config.models import Data, Evaluate, Experiment, Features, Train
from airflow_mlops.links.reports import ExperimentReportLink
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section
from airflow_mlops.operators.training import TrainOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

_LABEL = 60


def _items(plan: Mapping[str, Any], rung: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """What a mapped task is given of its trial; its plan has the rest."""
    trials = {t["number"]: t for t in plan["trials"]}
    several = len(plan["candidates"]) > 1
    items = []
    for number in numbers:
        trial = trials[number]
        words = [trial["candidate"]] * several + [f"{k}={v}" for k, v in trial["params"].items()]
        label = f"{number} {', '.join(words)}".strip()
        label = label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"
        items.append({"experiment": plan["experiment"], "rung": rung, "trial": number, "label": label})
    return items


class PlanExperimentOperator(MLOpsOperator):
    """Settle which trials an experiment runs; the trigger form may set ``n_trials`` and values of the space.

    Returns a list for the trials' tasks to be mapped over: ``{"experiment", "rung", "trial", "label"}``.

    :param experiment: the ``experiment`` section as in YAML.
    :param snapshot: reference of the (validated) snapshot; for models.
    :param data: the ``data`` section as in YAML; ``train``, ``features`` and ``evaluate`` likewise.
    :param task: ``classification`` or ``regression``; default: what the estimators are.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "snapshot")

    def __init__(
        self,
        *,
        experiment: Experiment | Mapping[str, Any] | None,
        snapshot: Any = None,
        data: Data | Mapping[str, Any] | None = None,
        train: Train | Mapping[str, Any] | None = None,
        features: Features | Mapping[str, Any] | None = None,
        evaluate: Evaluate | Mapping[str, Any] | None = None,
        task: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.experiment = section(Experiment, experiment)
        self.snapshot = snapshot
        self.data = section(Data, data) if data is not None else None
        self.train = section(Train, train) if train is not None else None
        self.features = section(Features, features) if features is not None else None
        self.evaluate = section(Evaluate, evaluate)
        self.task = task

    def work(self, scope: RunScope, context: Context) -> list[dict[str, Any]]:
        """Plan, and write the plan down."""
        from airflow_mlops.ml.experiment import begin, promoted
        from airflow_mlops.ml.experiment_plan import overridden
        from airflow_mlops.ml.experiment_request import told_of

        form, ti = context.get("params") or {}, context["ti"]
        asked = overridden(self.experiment, form.get("space") or {}, n_trials=form.get("n_trials"))
        records, plan = begin(
            self.hook.store(),
            self.pipeline,
            asked,
            # The DAG has as many as the file asks for, whatever the form says.
            rungs=self.experiment.rung_count,
            parts=(ti.dag_id, ti.run_id),
            data=self.data,
            snapshot=self.snapshot,
            train=self.train,
            features=self.features,
            evaluate=self.evaluate,
            task=self.task,
            allowed_imports=self.hook.allowed_imports,
            run={"dag_id": ti.dag_id, "run_id": ti.run_id, "replay": scope.replay, "rehearsal": not scope.promote},
            asked={"start": scope.start, **scope.extra} if scope.extra else None,
            log=self.log.info,
        )
        if scope.extra:
            for name, lines in told_of(scope.extra):
                for line in lines:
                    self.log.info("Asked for: %s: %s", name, line)
        return _items(plan, 1, promoted(records, plan, 1))


class TrialOperator(MLOpsOperator):
    """Run one trial and record what came of it; a trial that fails is a green task with its error recorded.

    Skipped where the budget is spent, or the best score gains no more. One that takes longer than
    ``execution_timeout`` has failed, and is not tried again. Returns ``{"trial", "rung", "score", "error"}``.

    :param trial: an item of the list that :class:`PlanExperimentOperator` or :class:`NextRungOperator` returned.
    :param data: the ``data`` section as in YAML; for models.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "trial")

    def __init__(self, *, trial: Any, data: Data | Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trial = trial
        self.data = section(Data, data) if data is not None else None

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Run it, unless it has succeeded before."""
        from airflow_mlops.ml.experiment import Stopped, run, runner_of
        from airflow_mlops.ml.experiment_records import ExperimentRecords

        store, ti = self.hook.store(), context["ti"]
        records = ExperimentRecords(store, self.pipeline, self.trial["experiment"])
        plan = records.plan()
        runner = runner_of(
            store,
            plan,
            data=self.data,
            allowed_imports=self.hook.allowed_imports,
            trusted_types=self.hook.trusted_types,
            log=self.log.info,
        )
        number, rung = self.trial["trial"], self.trial["rung"]
        about = {"dag_id": ti.dag_id, "run_id": ti.run_id, "map_index": ti.map_index}
        found = run(records, plan, number, rung, runner, run=about, limits=(AirflowTaskTimeout,), log=self.log.info)
        if isinstance(found, Stopped):
            raise AirflowSkipException(f"trial {number} is not begun: {found.why}")
        if found["error"] is not None:
            self.log.error("Trial %d (%s) failed: %s", number, self.trial["label"], found["error"])
        else:
            self.log.info("Trial %d (%s): %s", number, self.trial["label"], found["score"])
        return {"trial": number, "rung": rung, "score": found["score"], "error": found["error"]}


class NextRungOperator(MLOpsOperator):
    """Tell which trials go on to a rung: the best of the one before, by their records.

    Returns a list like :class:`PlanExperimentOperator`'s.

    :param plan: XCom of :class:`PlanExperimentOperator`.
    :param rung: the rung that they go on to, from 2.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "plan")

    def __init__(self, *, plan: Any, rung: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.rung = rung

    def work(self, scope: RunScope, context: Context) -> list[dict[str, Any]]:
        """Read the records and rank."""
        from airflow_mlops.ml.experiment import promoted
        from airflow_mlops.ml.experiment_records import ExperimentRecords

        records = ExperimentRecords(self.hook.store(), self.pipeline, self.plan[0]["experiment"])
        plan = records.plan()
        numbers = promoted(records, plan, self.rung)
        self.log.info("Trials that go on to rung %d: %s", self.rung, ", ".join(map(str, numbers)) or "none")
        return _items(plan, self.rung, numbers)


class ChooseWinnerOperator(MLOpsOperator):
    """Choose the best trial and keep the report of all of them.

    Returns ``{"experiment", "winner", "sentence", "finished", "failed", "not_run", "report", …}``; ``winner`` is
    ``{"number", "candidate", "params", "score", "rung", "train", "features"}``.

    :param plan: XCom of :class:`PlanExperimentOperator`.
    :raises TrainingError: no trial has a score.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "plan")
    operator_extra_links = (ExperimentReportLink(),)

    def __init__(self, *, plan: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Choose, keep result and report."""
        from airflow_mlops.ml.experiment import finish
        from airflow_mlops.ml.experiment_records import ExperimentRecords
        from airflow_mlops.ml.experiment_report import experiment_report_html

        records = ExperimentRecords(self.hook.store(), self.pipeline, self.plan[0]["experiment"])
        plan = records.plan()
        result, rows = finish(records, plan)
        page = experiment_report_html(plan, result, rows, title=f"Experiment of {self.pipeline}")
        result |= {"report": self.keep_report(context, "Experiment report", page)}
        records.write_result(result)
        self.log.info("%s", result["sentence"])
        short = {k: result[k] for k in ("experiment", "sentence", "finished", "failed", "not_run", "report")}
        self.record_check(scope, "experiment", short | {"run_id": context["ti"].run_id})
        return result


class TrainWinnerOperator(TrainOperator):
    """Train the winner of an experiment on the whole training part, and register it as a version.

    Returns what :class:`~airflow_mlops.operators.training.TrainOperator` returns.

    :param winner: XCom of :class:`ChooseWinnerOperator`.
    """

    template_fields: Sequence[str] = (*TrainOperator.template_fields, "winner")

    def __init__(self, *, winner: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.winner = winner

    def _settled(self, context: Context) -> tuple[Train, Features | None, dict[str, Any]]:
        from airflow_mlops.ml.experiment import settled_winner

        return settled_winner(self.winner)
