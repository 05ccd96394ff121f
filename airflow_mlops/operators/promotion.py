"""Deliver a model: make it the champion, or hand it over as one bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.exceptions import RegistryError
from airflow_mlops.links.reports import HandoverBundleLink, ModelCardLink
from airflow_mlops.operators.base import MLOpsOperator, RunScope
from airflow_mlops.registry.version import model_name

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_mlops.registry.registry import Registry, Version

YES, NO = "Approve", "Reject"
"""The options of the question, as those of Airflow's ``ApprovalOperator``."""


class PromoteOperator(MLOpsOperator):
    """Make a version the champion, if the champion is still the one the gates compared it with.

    What a person answered is recorded, a no as well: then the task is skipped. So let it run after either answer
    (``HITLOperator``); ``ApprovalOperator`` skips it before it can record a no.

    Returns ``{"version", "previous", "digest"}``; the outlet asset's events carry them too, with name and metrics.

    :param decision: XCom of :class:`~airflow_mlops.operators.evaluation.GateOperator`.
    :param approval: XCom of the task that asked a person, whose options are ``Approve`` and ``Reject``.
    :raises PromotionConflict: (fails without retry) another version became champion meanwhile.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "decision", "approval")
    operator_extra_links: Collection[BaseOperatorLink] = (ModelCardLink(),)

    def __init__(self, *, decision: Any, approval: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.decision = decision
        self.approval = approval

    def _promote(self, scope: RunScope, context: Context) -> Version:
        if not scope.promote:
            raise AirflowSkipException("this replay does not promote; start it with --promote to do so")
        registry, decision = self.hook.registry(self.pipeline), self.decision
        number, by = decision["version"], self._agreed(registry, context)
        version = registry.promote(
            number,
            expected=decision["champion"],
            op_id=self.operation(context, "promote", number, decision["champion"]),
            reason=decision["sentence"],
            by=by,
            window=scope.window.to_dict() if scope.window else None,
        )
        if version.status != "champion":
            champion = registry.champion()
            raise AirflowSkipException(
                f"{self.pipeline} v{number} was promoted by this task before; the champion now is "
                f"v{champion.number if champion else '?'}"
            )
        before = f"v{decision['champion']}" if decision["champion"] else "none"
        self.log.info("%s: champion is now v%d (was %s)", self.pipeline, version.number, before)
        return version

    def _agreed(self, registry: Registry, context: Context) -> str | None:
        """Who agreed, where somebody was asked; stop where gates or people said no, and record what people said.

        A task that Airflow skipped for the gates' no can be cleared and run.
        """
        decision, approval = self.decision, self.approval or {}
        number, answer, by = decision["version"], approval.get("chosen_options"), approver(approval)
        what = f"{self.pipeline} v{number}"
        if not decision.get("go", True):
            raise AirflowSkipException(f"{what} did not pass its gates: {decision['sentence']}")
        if answer:
            note = {"by": by, "answer": list(answer), "answered_at": _moment(approval.get("responded_at"))}
            # All of it: the same person may be asked again by the same run, and change their mind.
            operation = self.operation(context, "approval", number, note)
            registry.annotate(number, "approval", note, op_id=operation)
        elif decision.get("approval"):
            raise RegistryError(
                f"{what} needs a person's yes, and there is no answer",
                hint="let the approval task be answered (marking it as succeeded is no answer), and pass its XCom on "
                "as `approval`",
            )
        if answer and answer != [YES]:
            self.keep_card(context, number)
            self.hook.mirror(registry, number, "approval")
            raise AirflowSkipException(f"{what} is not promoted: {by or 'the time-out'} answered {answer[0]}")
        return by

    def _announce(self, scope: RunScope, context: Context, version: Version) -> dict[str, Any]:
        result = {
            "version": version.number,
            "previous": self.decision["champion"],
            "digest": version.record["model"]["digest"],
        }
        self.record_check(scope, "promotion", result)
        for outlet in self.outlets:
            extra = scope.event_extra() | champion_extra(version, self.decision["champion"])
            context["outlet_events"][outlet].extra = extra
        self.tell(context, scope, "promoted", f"{self.pipeline}: champion is now v{version.number}")
        return result

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Promote, keep the model card, and tell the assets and whoever asked."""
        version = self._promote(scope, context)
        self.keep_card(context, version.number)
        self.hook.mirror(self.hook.registry(self.pipeline), version.number, "promote")
        return self._announce(scope, context, version)


class RolloutOperator(PromoteOperator):
    """Let a version begin its way to champion in steps; the first model of all becomes champion at once.

    Where another version is rolling out, this one stays a candidate and the task is skipped: what rolls out is judged
    to its end first, or frequent trainings would let none through.

    Returns ``{"version", "previous", "digest"}``, and ``step`` where a rollout has begun.

    :param steps: ``shadow``, ``{"canary": share}``, the last one ``full``; at least two.
    """

    def __init__(self, *, steps: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = list(steps)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Begin the rollout, keep the model card, and tell whoever asked."""
        from airflow_mlops.registry.rollout import path

        if self.decision["champion"] is None:
            return super().work(scope, context)
        if not scope.promote:
            raise AirflowSkipException("this replay does not promote; start it with --promote to do so")
        registry, decision = self.hook.registry(self.pipeline), self.decision
        number = decision["version"]
        by = self._agreed(registry, context)
        under_way = registry.rollout()
        if under_way is not None and under_way.version != number:
            raise AirflowSkipException(
                f"{self.pipeline} v{under_way.version} is rolling out ({under_way.name}): v{number} stays a candidate. "
                "To try it instead, end that rollout by hand and start this task again"
            )
        version = registry.begin_rollout(
            number,
            expected=decision["champion"],
            steps=self.steps,
            op_id=self.operation(context, "rollout", number, decision["champion"]),
            reason=decision["sentence"],
            by=by,
            window=scope.window,
        )
        self.keep_card(context, number)
        self.hook.mirror(registry, number, "rollout")
        self.log.info("%s v%d rolls out: %s", self.pipeline, number, path(self.steps))
        # When the task has ended, Airflow sends an event for each outlet, and the champion has no news.
        self.outlets = []
        step = registry.rollout()
        result = {
            "version": number,
            "previous": decision["champion"],
            "digest": version.record["model"]["digest"],
            "step": step.name if step is not None else "ended",
        }
        self.record_check(scope, "promotion", result)
        return result


class HandoverOperator(PromoteOperator):
    """Promote, and hand the model over as one bundle that runs without Airflow and without this package.

    Returns what :class:`PromoteOperator` returns and ``bundle`` (digest), ``uri``, ``command``.
    """

    operator_extra_links = (ModelCardLink(), HandoverBundleLink())

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Promote, write bundle and card, link both."""
        from airflow_mlops.links.reports import file_url, persist_report
        from airflow_mlops.ml.handover import make_bundle
        from airflow_mlops.store import layout

        version = self._promote(scope, context)
        self.keep_card(context, version.number)
        self.hook.mirror(self.hook.registry(self.pipeline), version.number, "promote")
        registry, store, ti = self.hook.registry(self.pipeline), self.hook.store(), context["ti"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{self.pipeline}-v{version.number}.zip"
            bundle = make_bundle(store, registry.get(version.number), path, verifier=self.hook.verifier())
            key = layout.handover(ti.dag_id, bundle.digest)
            store.put_file(key, path)
        persist_report(context, "Handover bundle", file_url(ti.dag_id, bundle.digest))
        uri = f"{store.uri.rstrip('/')}/{key}"
        note = {"bundle": bundle.digest, "uri": uri, "files": bundle.files, "command": bundle.command}
        registry.annotate(version.number, "handover", note, op_id=self.operation(context, "handover", bundle.digest))
        self.log.info("Handover bundle: %s", uri)
        self.log.info("To use it anywhere: unzip it, pip install -r requirements.txt, then: %s", bundle.command)
        return {**self._announce(scope, context, version), **note}


def champion_extra(version: Version, previous: int | None) -> dict[str, Any]:
    """What an event of the champion's asset says about it: name, key, version, the one before, digest, metrics."""
    return {
        "name": model_name(version.pipeline, version.key),
        "key": version.key,
        "version": version.number,
        "previous": previous,
        "digest": version.record["model"]["digest"],
        "metrics": version.metrics,
    }


def _moment(time: Any) -> str | None:
    """When somebody answered, as text; XCom gives a time."""
    return time.isoformat(timespec="milliseconds") if isinstance(time, datetime) else time


def approver(answer: Mapping[str, Any]) -> str | None:
    """Who answered an approval: the user's name, or ``None`` where it timed out into its default."""
    user = answer.get("responded_by_user") or {}
    return user.get("name") or user.get("id")
