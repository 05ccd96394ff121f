"""Ask for a retrain, and claim one: the ledger between them makes one retrain of many events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.config.models import Monitor, Retrain, length
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section
from airflow_mlops.window import Window

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.ml.retrain import Ledger
    from airflow_mlops.ml.retrain_state import Checked

ALARMS = {"drift": "drift", "performance": "drop"}
UNDECIDED = ("not_enough_data", "pending_labels")
"""Verdicts that neither raise an alarm nor speak against one."""


class RequestRetrainOperator(MLOpsOperator):
    """Ask the ledger for a retrain where a check raised an alarm; skipped, with the reason, where not granted.

    Where an earlier grant still waits for its training, its event is sent again: it may have been lost.
    Returns ``{"grant", "reasons", "sentence"}``; the outlet asset's event carries them to ``__train``.

    :param checks: XComs of the monitoring checks, by name (``drift``, ``performance``).
    :param retrain: the ``retrain`` section as in YAML.
    :param monitor: the ``monitor`` section as in YAML.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "checks")

    def __init__(
        self,
        *,
        checks: Mapping[str, Any],
        retrain: Retrain | Mapping[str, Any],
        monitor: Monitor | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.checks = dict(checks)
        self.retrain = section(Retrain, retrain)
        self.monitor = section(Monitor, monitor)

    def _found(self, scope: RunScope) -> tuple[dict[str, Checked], dict[str, str]]:
        """What this pipeline retrains on: the checks that came to a result, and the sentences of those that alarmed."""
        from airflow_mlops.ml.retrain_state import Checked
        from airflow_mlops.ml.staleness import model_age

        end = scope.required_window.end
        checked: dict[str, Checked] = {}
        alarms: dict[str, str] = {}
        for name, result in self.checks.items():
            if not result or name not in self.retrain.when or result["verdict"] in UNDECIDED:
                continue
            judged = result.get("window")
            checked[name] = Checked(
                f"v{result.get('version')}",
                Window.from_dict(judged).end if judged else end,
                tuple(result.get("drifted") or ()),
            )
            if result["verdict"] == ALARMS[name]:
                alarms[name] = result["sentence"]
        max_age = length(self.monitor.max_age)
        champion = (
            self.hook.registry(self.pipeline).champion() if max_age and "staleness" in self.retrain.when else None
        )
        # Below zero where a newer champion is in place by now: a window of the past that is checked again.
        age = model_age(champion, end) if champion else None
        if max_age and champion and age is not None:
            checked["staleness"] = Checked(f"v{champion.number}", end)
            if age > max_age:
                alarms["staleness"] = f"the champion's data ends {age.days} days before this window's end"
        return checked, alarms

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Ask; announce a grant."""
        from airflow_mlops.ml.retrain import Ledger

        if scope.window is None:
            raise AirflowSkipException("nothing was checked: these predictions were made without a window")
        window, (checked, alarms) = scope.window, self._found(scope)
        reasons, ledger = sorted(alarms), Ledger(self.hook.store(), self.pipeline)
        seen = {name: f"{name}@{one.at.isoformat()}:{one.about}" for name, one in checked.items()}
        # The same alarms of the same versions in the same windows are one piece of evidence.
        evidence = ",".join(seen[name] for name in reasons)
        if not reasons:
            if self.retrain.confirm and checked:
                operation = self.operation(context, "note", window.key, sorted(seen.values()))
                ledger.note(checked, at=window.end, op_id=operation, dry=not scope.promote)
            return self._remind(ledger, scope, context, "no alarm that this pipeline retrains on")
        decision = ledger.request(
            reasons,
            evidence=evidence,
            at=window.end,
            checks=checked,
            config=self.retrain,
            op_id=self.operation(context, "request", window.key, evidence),
            details=alarms,
            dry=not scope.promote,
            keys=self._keys({name: checked[name] for name in reasons}),
        )
        answer = {"granted": decision.granted, "reasons": decision.reasons, "sentence": decision.sentence}
        self.record_check(scope, "request", answer | {"held": decision.held})
        for reason in decision.reasons if decision.granted else ():
            self.emit(scope, "mlops.retrain.granted", reason=reason)
        if not decision.granted:
            _tell_held(self, context, scope, decision.held, decision.sentence)
            return self._remind(ledger, scope, context, decision.sentence)
        self.log.info("Retrain granted: %s", decision.sentence)
        self.tell(context, scope, "retrain", f"{self.pipeline}: retrain, because of {', '.join(decision.reasons)}")
        return self._send(scope, context, str(decision.grant), decision.reasons, decision.sentence, decision.keys)

    def _keys(self, alarmed: Mapping[str, Checked]) -> dict[str, str] | None:
        """Of a fleet, by reason the digest of the keys that alarmed."""
        return None

    def _remind(self, ledger: Ledger, scope: RunScope, context: Context, sentence: str) -> dict[str, Any]:
        """Send the event of an earlier grant that still waits once more; skip where there is none."""
        grant = ledger.waiting(scope.required_window.end) if scope.promote else None
        if grant is None:
            raise AirflowSkipException(sentence)
        sentence = f"{sentence}; {grant.id} is not claimed yet: its event is sent again"
        self.log.info("%s", sentence)
        return self._send(scope, context, grant.id, grant.reasons, sentence, grant.keys)

    def _send(
        self,
        scope: RunScope,
        context: Context,
        grant: str,
        reasons: list[str],
        sentence: str,
        keys: str | None,
    ) -> dict[str, Any]:
        of_keys = {"keys": keys} if keys is not None else {}
        for outlet in self.outlets:
            why: list[Any] = [*reasons]
            context["outlet_events"][outlet].extra = {**scope.event_extra(), "grant": grant, "reasons": why, **of_keys}
        return {"grant": grant, "reasons": reasons, "sentence": sentence, **of_keys}


class RequestExperimentOperator(RequestRetrainOperator):
    """Ask for an experiment where an alarm stands and training again no longer helps; else skipped, with the reason.

    Returns ``{"request", "reasons", "sentence"}``; the outlet asset's event carries them, with what the alarms say
    (``details``) and the candidates and windows that show it, to ``__experiment``.

    :param after: so many candidates in a row that did not become champion, or windows in a row with concept drift.
    """

    def __init__(self, *, after: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.after = after

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Count, ask, and announce the request."""
        from airflow_mlops.ml.futile import futile
        from airflow_mlops.ml.retrain import Ledger

        if scope.window is None:
            raise AirflowSkipException("nothing was checked: these predictions were made without a window")
        if not scope.promote:
            raise AirflowSkipException("a replay that does not promote asks for no experiment")
        window, alarms = scope.window, self._found(scope)[1]
        ledger, registry = Ledger(self.hook.store(), self.pipeline), self.hook.registry(self.pipeline)
        operation = self.operation(context, "experiment", window.key)
        body = ledger.asked(operation)
        if body is None:
            if not alarms:
                raise AirflowSkipException("no alarm that this pipeline retrains on")
            found = futile(self.hook.store(), registry, window, self.after, ledger.experiments())
            if isinstance(found, str):
                raise AirflowSkipException(found)
            body = ledger.ask_for_experiment(
                found, reasons=sorted(alarms), at=window.end, op_id=operation, details=alarms
            )
        if body is None:
            raise AirflowSkipException("an experiment was asked for by the same candidates and windows")
        answer = {name: body[name] for name in ("request", "reasons", "sentence")}
        self.log.info("Experiment asked for: %s", body["sentence"])
        self.tell(context, scope, "experiment", f"{self.pipeline}: an experiment is wanted: {body['sentence']}")
        for outlet in self.outlets:
            extra: dict[str, Any] = {**scope.event_extra(), **answer}
            extra |= {name: body[name] for name in ("details", "versions", "windows")}
            context["outlet_events"][outlet].extra = extra
        return answer


class ClaimRetrainOperator(MLOpsOperator):
    """First task of automatic training: claims the grant of its event, or skips the run with the reason.

    Returns ``{"start", "reasons", "sentence"}``.

    :param retrain: the ``retrain`` section as in YAML.
    """

    def __init__(self, *, retrain: Retrain | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.retrain = section(Retrain, retrain)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Claim, and record what started this training."""
        from airflow_mlops.ml.retrain import Ledger

        claim = self._claim(Ledger(self.hook.store(), self.pipeline), scope, context)
        result = {"go": claim.go, "start": scope.start, "reasons": list(claim.reasons), "sentence": claim.sentence}
        self.record_check(scope, "training" if claim.go else "suppressed", result | {"run_id": context["ti"].run_id})
        if not claim.go:
            if claim.held:
                _tell_held(self, context, scope, claim.held, claim.sentence)
            raise AirflowSkipException(claim.sentence)
        self.emit(scope, "mlops.training.started", start=scope.start)
        self.log.info("Training goes on: %s", claim.sentence)
        return result

    def _claim(self, ledger: Ledger, scope: RunScope, context: Context) -> Any:
        window, grant = scope.required_window, scope.extra.get("grant") if scope.start == "retrain" else None
        kinds = {"retrain", "schedule", "new_data", "initial"}
        return ledger.claim(
            grant,
            start=scope.start if scope.start in kinds else "manual",
            at=window.end,
            run=context["ti"].run_id,
            config=self.retrain,
            op_id=self.operation(context, "claim", window.key, grant),
            # A watcher's event names the data it saw, so that the same files twice are one piece of evidence.
            evidence=f"{(scope.extra.get('payload') or {}).get('version') or window.key}:{scope.start}",
            dry=not scope.promote,
            keys=self._named_keys(context),
        )

    def _named_keys(self, context: Context) -> str | None:
        """Of a fleet, the digest of the keys that the trigger form names."""
        from airflow_mlops.store import put_json

        named = (context.get("params") or {}).get("keys")
        return put_json(self.hook.store(), sorted({str(key) for key in named})) if named else None


def _tell_held(operator: MLOpsOperator, context: Context, scope: RunScope, held: Sequence[str], sentence: str) -> None:
    """Count what held, and tell of ``budget`` where that is used up and asked for by name, else of ``suppressed``."""
    for kind in held:
        operator.emit(scope, "mlops.retrain.suppressed", held=kind)
    asked = operator.notify["events"] if operator.notify else ()
    event = "budget" if "budget" in held and "budget" in asked else "suppressed"
    operator.tell(context, scope, event, f"{operator.pipeline}: {sentence}")
