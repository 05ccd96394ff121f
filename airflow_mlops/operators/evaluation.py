"""Judge a candidate: score it on the holdout beside the champion, then decide by the gates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import SkipMixin

from airflow_mlops.config.models import Data, Evaluate
from airflow_mlops.links.reports import GateReportLink, ModelCardLink
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_mlops.ml.evaluation import Evaluation
    from airflow_mlops.ml.gates import GateResult


class EvaluateOperator(MLOpsOperator):
    """Score candidate, champion and the version that losses are counted from on the same holdout.

    Returns ``{"version", "champion", "reference_version", "evaluation", "metrics"}``; ``evaluation`` is the digest of
    the row-by-row predictions, which the gates read.

    :param candidate: XCom of :class:`~airflow_mlops.operators.training.TrainOperator`.
    :param data: the ``data`` section as in YAML.
    :param evaluate: the ``evaluate`` section as in YAML.
    :param folder: where files of recorded behaviour lie; default: the task's own folder.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "candidate")

    def __init__(
        self,
        *,
        candidate: Any,
        data: Data | Mapping[str, Any],
        evaluate: Evaluate | Mapping[str, Any] | None = None,
        folder: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.folder = folder
        self.candidate = candidate
        self.data = section(Data, data)
        self.evaluate = section(Evaluate, evaluate)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Score both, record the evaluation on the version."""
        from airflow_mlops.ml.candidate_verdict import evaluate_candidate

        store, registry = self.hook.store(), self.hook.registry(self.pipeline)
        version = registry.get(self.candidate["version"])
        result = evaluate_candidate(
            store,
            version.record,
            registry.champion(),
            data=self.data,
            config=self.evaluate,
            reference=registry.reference(),
            allowed_imports=self.hook.allowed_imports,
            trusted_types=self.hook.trusted_types,
            log=self.log.info,
            verifier=self.hook.verifier(),
            pipeline=version.pipeline,
            key=version.key,
            folder=Path(self.folder) if self.folder else None,
        )
        operation = self.operation(context, "evaluation", version.number, result)
        registry.annotate(version.number, "evaluation", result, op_id=operation)
        return {"version": version.number, **result}


class GateOperator(MLOpsOperator, SkipMixin):
    """Decide whether a candidate may go on; a rejection is a green task with its reason, delivery skipped.

    Returns ``{"version", "champion", "reference_version", "next_reference", "verdict", "sentence", "results", "report",
    "go", "approval"}``.

    :param evaluation: XCom of :class:`EvaluateOperator`.
    :param evaluate: the ``evaluate`` section as in YAML.
    :param approval: ``always``, or ``asked`` where only ``require_approval`` verdicts need a person.
    :param approval_task_id: task to skip where nobody needs to be asked.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "evaluation")
    operator_extra_links: Collection[BaseOperatorLink] = (GateReportLink(), ModelCardLink())
    # Airflow does not see it by the base class, and else runs what was skipped when somebody clears it.
    inherits_from_skipmixin = True

    def __init__(
        self,
        *,
        evaluation: Any,
        evaluate: Evaluate | Mapping[str, Any] | None = None,
        approval: str = "asked",
        approval_task_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.evaluation = evaluation
        self.evaluate = section(Evaluate, evaluate)
        self.approval = approval
        self.approval_task_id = approval_task_id

    def _own_gate(self) -> Callable[[Evaluation], GateResult] | None:
        """A gate beside those of the ``evaluate`` section: a decorated function."""
        return None

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Decide, keep the report and the model card, and skip what must not follow."""
        from airflow_mlops.ml.candidate_verdict import decide_candidate
        from airflow_mlops.ml.gates import follow_up

        store, registry = self.hook.store(), self.hook.registry(self.pipeline)
        version = registry.get(self.evaluation["version"])
        report, html = decide_candidate(
            store,
            version,
            self.evaluation,
            self.evaluate,
            trusted_types=self.hook.trusted_types,
            log=self.log.info,
            own_gate=self._own_gate(),
            verifier=self.hook.verifier(),
        )
        go, ask = follow_up(report["verdict"], self.evaluate, self.approval)
        ask = ask and scope.promote
        result = {
            "version": version.number,
            "champion": self.evaluation["champion"],
            **report,
            "go": go,
            "approval": ask,
            "report": self.keep_report(context, "Gate report", html),
        }
        operation = self.operation(context, "gates", version.number, result)
        registry.annotate(version.number, "gates", result, op_id=operation)
        self.keep_card(context, version.number)
        for line in report["results"]:
            self.log.info("Gate %s: %s", line["verdict"], line["sentence"])
        self.log.info("Verdict on version %d: %s", version.number, report["sentence"])
        short = {k: result[k] for k in ("version", "champion", "verdict", "sentence", "go")}
        self.emit(scope, "mlops.gate.verdict", verdict=report["verdict"])
        self.record_check(scope, "gates", short | {"run_id": context["ti"].run_id})
        if not go:
            self.tell(context, scope, "rejected", f"{self.pipeline} v{version.number}: {report['sentence']}")
        elif scope.promote and registry.rollout() is None:  # what rolls out stays the challenger
            registry.set_challenger(version.number, op_id=self.operation(context, "challenger", version.number))
        self.hook.mirror(registry, version.number, "gates")
        self._skip(context, go, ask, result)
        return result

    def _skip(self, context: Context, go: bool, ask: bool, result: dict[str, Any]) -> None:
        """Skip delivery after a rejection, or the question where nobody needs to be asked."""
        task = context["task"]
        if not go:
            skipped = task.get_flat_relatives(upstream=False)
        elif not ask and self.approval_task_id:
            skipped = [t for t in task.get_direct_relatives(upstream=False) if t.task_id == self.approval_task_id]
        else:
            return
        skipped = list(skipped)
        if skipped:
            # Skipping ends the task by an exception, so the result is pushed before it.
            context["ti"].xcom_push(key="return_value", value=result)
            self.skip(context["ti"], skipped)
