"""Ask for a retrain, and claim one: the ledger between them makes one retrain of many events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.config.models import Monitor, Retrain, length
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.ml.retrain import Ledger

ALARMS = {"drift": "drift", "performance": "drop"}


class RequestRetrainOperator(MLOpsOperator):
    """Ask the ledger for a retrain where a check raised an alarm; skipped, with the reason, where not granted.

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

    def _reasons(self, scope: RunScope) -> dict[str, str]:
        """Alarm → its sentence, for the alarms that this pipeline retrains on."""
        reasons: dict[str, str] = {
            name: result["sentence"]
            for name, result in self.checks.items()
            if result and name in self.retrain.when and result["verdict"] == ALARMS[name]
        }
        max_age = length(self.monitor.max_age)
        champion = (
            self.hook.registry(self.pipeline).champion() if max_age and "staleness" in self.retrain.when else None
        )
        trained_on = ((champion.record["snapshot"].get("window") or {}) if champion else {}).get("end")
        if max_age and trained_on:
            from airflow_mlops.window import Window

            age = scope.required_window.end - Window.of(trained_on, scope.required_window.end).start
            if age > max_age:
                reasons["staleness"] = f"the champion's data ends {age.days} days before this window's end"
        return reasons

    def _evidence(self, window: str, reasons: Mapping[str, str]) -> str:
        """What was seen: the same alarms of the same version in the same window are one request."""
        versions = sorted({str(self.checks[name].get("version")) for name in reasons if name in self.checks})
        return f"{window}:{','.join(sorted(reasons))}:v{','.join(versions)}"

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Ask; announce a grant."""
        from airflow_mlops.ml.retrain import Ledger

        if scope.window is None:
            raise AirflowSkipException("nothing was checked: these predictions were made without a window")
        store, window = self.hook.store(), scope.window
        reasons = self._reasons(scope)
        if not reasons:
            raise AirflowSkipException("no alarm that this pipeline retrains on")
        decision = Ledger(store, self.pipeline).request(
            sorted(reasons),
            evidence=self._evidence(window.key, reasons),
            at=window.end,
            config=self.retrain,
            op_id=self.operation(context, "request", window.key, sorted(reasons)),
            details=reasons,
            dry=not scope.promote,
        )
        answer = {"granted": decision.granted, "reasons": sorted(reasons), "sentence": decision.sentence}
        self.record_check(scope, "request", answer)
        if not decision.granted:
            raise AirflowSkipException(decision.sentence)
        self.log.info("Retrain granted: %s", decision.sentence)
        self.tell(context, scope, "retrain", f"{self.pipeline}: retrain, because of {', '.join(sorted(reasons))}")
        for outlet in self.outlets:
            why: list[Any] = sorted(reasons)
            context["outlet_events"][outlet].extra = {**scope.event_extra(), "grant": decision.grant, "reasons": why}
        return {"grant": decision.grant, "reasons": sorted(reasons), "sentence": decision.sentence}


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
            raise AirflowSkipException(claim.sentence)
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
        )
