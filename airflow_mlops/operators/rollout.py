"""Take a rollout a step further, or back, by what its windows show."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.config.models import Evaluate, StepVerdict, length
from airflow_mlops.exceptions import PromotionConflict
from airflow_mlops.links.reports import ModelCardLink, RolloutReportLink
from airflow_mlops.operators.base import RunScope, section
from airflow_mlops.operators.monitoring import CheckOperator
from airflow_mlops.operators.promotion import champion_extra

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_mlops.ml.rollout import Look
    from airflow_mlops.ml.rollout_evidence import Evidence
    from airflow_mlops.registry.entry import Entry
    from airflow_mlops.registry.registry import Registry
    from airflow_mlops.registry.rollout import Rollout
    from airflow_mlops.window import Window


_LOOK = "rollout_look"
"""Beside the result ``rollout``: which look was about to be committed for a window."""


class AdvanceRolloutOperator(CheckOperator):
    """Look at the version that is rolling out: it goes to its next step, falls, or waits.

    A window is looked at once: what the look came to is one commit of the registry, named by the rollout, its step and
    the window. A try that died before it did nothing, one that died after it is taken up where it was. Skipped, with
    the reason, where nothing rolls out or nothing new is known.

    Returns ``{"kind": "next", "end" or "wait", "version", "step", "sentence", …}``. When the version becomes champion
    the outlet asset's events carry it.

    :param evaluate: the ``evaluate`` section as in YAML: its relative gates decide.
    :param verdict: the ``deploy.verdict`` section as in YAML.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (RolloutReportLink(), ModelCardLink())

    def __init__(
        self,
        *,
        evaluate: Evaluate | Mapping[str, Any] | None = None,
        verdict: StepVerdict | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.evaluate = section(Evaluate, evaluate)
        self.verdict = section(StepVerdict, verdict)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Read the step's windows, decide, commit, and tell."""
        if not scope.promote:
            raise AirflowSkipException("a replay that does not promote decides about no rollout")
        if scope.window is None:
            raise AirflowSkipException("these predictions were made without a window: they are no evidence")
        registry, window = self.hook.registry(self.pipeline), scope.window
        rollout = registry.rollout()
        entry = self._decided(registry, rollout, window)
        if entry is None:
            if rollout is None:
                raise AirflowSkipException(f"no version of {self.pipeline} is rolling out")
            entry = self._look(registry, rollout, scope, context)
        return self._told(registry, entry, scope, context)

    def _decided(self, registry: Registry, rollout: Rollout | None, window: Window) -> Entry | None:
        """What an earlier try has committed for this window: in the present step, or in the one that it ended."""
        from airflow_mlops.registry.checks import read_check

        operations = [_operation(rollout, window)] if rollout is not None else []
        before = (read_check(self.hook.store(), self.pipeline, _LOOK, window) or {}).get(_LOOK)
        # Of an earlier rollout only where none is under way: its last look may have died before it was told.
        if before is not None and (rollout is None or before["rollout"] == rollout.id):
            operations.append(before["operation"])
        for operation in operations:
            if (entry := registry.log.find(operation)) is not None:
                return entry
        return None

    def _look(self, registry: Registry, rollout: Rollout, scope: RunScope, context: Context) -> Entry:
        from airflow_mlops.ml.rollout import look_at
        from airflow_mlops.ml.rollout_evidence import due, read_evidence
        from airflow_mlops.ml.rollout_report import rollout_report_html
        from airflow_mlops.ml.rollout_rows import read_windows
        from airflow_mlops.registry.checks import write_check

        store, labels, window = self.hook.store(), self.monitor.labels, scope.required_window
        evidence = read_evidence(store, self.pipeline, rollout)
        seen = due(evidence, window, None)
        known = due(evidence, window, length(labels.delay) if labels else None)
        what = f"v{rollout.version} ({rollout.name})"
        if not seen:
            raise AirflowSkipException(f"{what} is rolling out, and no window has been scored in this step yet")
        champion, tried = registry.get(rollout.champion), registry.get(rollout.version)
        look = look_at(
            rollout,
            seen,
            known,
            rules=self.verdict,
            compared=lambda: read_windows(
                store,
                known,
                data=self.data,
                labels=labels,
                labels_of=lambda one: self._labels_of(one, context),
                files=self.hook.files(labels.source if labels else None),
            ),
            champion=champion,
            tried=tried,
            data=self.data,
            evaluate=self.evaluate,
            performance=self.monitor.performance,
            labelled=labels is not None,
        )
        if look is None:
            raise AirflowSkipException(
                f"{what} waits: {len(seen)} windows were scored in this step, and no outcomes of another one are due"
            )
        page = rollout_report_html(look, rollout, seen, tried=tried, champion=champion, looks=self.verdict.max_windows)
        operation, report = _operation(rollout, window), self.keep_report(context, "Rollout report", page)
        # Before the commit, so that a try that dies after it finds it again, in whichever step the rollout is by then.
        mark = {"operation": operation, "rollout": rollout.id, "sentence": look.sentence}
        write_check(store, self.pipeline, window, _LOOK, mark, run=scope.run)
        try:
            registry.judge_rollout(
                rollout,
                look.kind,
                look=look.look,
                spent=look.spent,
                op_id=operation,
                reason=look.sentence,
                window=window,
                evidence=_evidence(look, seen, report),
            )
        except PromotionConflict as e:
            raise AirflowSkipException(f"{what}: {e.message}; this look does not count") from None
        entry = registry.log.find(operation)
        if entry is None:
            raise PromotionConflict(f"the look {operation} at {what} is not in the registry")
        return entry

    def _labels_of(self, one: Evidence, context: Context) -> str:
        """The place of a window's outcomes."""
        labels = self.monitor.labels
        judged: Any = {**context, "window": one.window}
        return str(self.render_template(labels.source, judged)) if labels is not None else ""

    def _told(self, registry: Registry, entry: Entry, scope: RunScope, context: Context) -> dict[str, Any]:
        """Everything after the commit; done again by a try that takes it up."""
        from airflow_mlops.notifications.metrics import of_check

        body = entry.payload
        number, sentence = body["version"], body["reason"]
        said = body["rollout"] if entry.type == "promote" else body
        kind = "next" if entry.type == "promote" else body["kind"]
        self.log.info("v%d: %s", number, sentence)
        verdict = {"next": "passed", "end": "rejected", "wait": "inconclusive"}[kind]
        result = {
            "kind": kind,
            "rollout": said["id"],
            "verdict": verdict,
            "version": number,
            "step": said["step"],
            "look": said["look"],
            "promoted": entry.type == "promote",
            "sentence": sentence,
        }
        self.record_check(scope, "rollout", result)
        for metric, value, tags in of_check("rollout", result):
            self.emit(scope, metric, value, **tags)
        if entry.type == "promote":
            self._champion(registry, number, body["expected"], scope, context)
        else:
            # When the task has ended, Airflow sends an event for each outlet, and the champion has no news.
            self.outlets = []
        if kind == "end":
            self.hook.mirror(registry, number, "rollout")
            self.tell(context, scope, "rollback", f"{self.pipeline} v{number}: {sentence}")
        return result

    def _champion(self, registry: Registry, number: int, before: int, scope: RunScope, context: Context) -> None:
        self.keep_card(context, number)
        self.hook.mirror(registry, number, "promote")
        version = registry.get(number)
        if version.status != "champion":
            champion = registry.champion()
            raise AirflowSkipException(
                f"{self.pipeline} v{number} was promoted by this look before; the champion now is "
                f"v{champion.number if champion else '?'}"
            )
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = scope.event_extra() | champion_extra(version, before)
        self.tell(context, scope, "promoted", f"{self.pipeline}: champion is now v{number}")


def _operation(rollout: Rollout, window: Window) -> str:
    """Id of the look at a window: the same for every run and every try, so that a window is looked at once a step."""
    from airflow_mlops.registry.log import op_id

    return op_id("rollout", rollout.id, rollout.version, rollout.step, window.key)


def _evidence(look: Look, seen: Sequence[Evidence], report: str) -> dict[str, Any]:
    """What the registry keeps of a look, as plain JSON."""
    return {
        "verdict": look.verdict,
        "windows": [one.window.key for one in seen],
        "rows": look.rows,
        "scored": look.scored,
        "served": look.served,
        "results": [
            {k: getattr(r, k) for k in ("name", "verdict", "value", "low", "high", "threshold")} for r in look.results
        ],
        "report": report,
    }
