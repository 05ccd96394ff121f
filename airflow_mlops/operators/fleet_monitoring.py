"""Watch a fleet: each key by itself, false alarms controlled over all of them; ask for the keys that need it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.config.models import length
from airflow_mlops.links.reports import DriftReportLink
from airflow_mlops.operators.base import RunScope
from airflow_mlops.operators.monitoring import CheckOperator, PerformanceCheckOperator, QualityCheckOperator
from airflow_mlops.operators.retrain import UNDECIDED, RequestRetrainOperator
from airflow_mlops.window import Window

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.ml.retrain_state import Checked


class FleetQualityCheckOperator(QualityCheckOperator):
    """Check the scored inputs of each key against the expectations: ``passed`` or ``failed``, with a report."""

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Run the expectations on the window's inputs."""
        from airflow_mlops.ml.fleet.quality import fleet_quality

        result, page = fleet_quality(self.hook.store(), self.pipeline, self._captured(scope), self.validate, self.data)
        result["report"] = self.keep_report(context, "Validation report", page)
        return self._record(scope, "quality", result)


class FleetDriftCheckOperator(CheckOperator):
    """Compare the scored inputs of each key with what the model that served them learned from.

    Verdict ``drift``, ``no_drift`` or ``not_enough_data``; the result names the keys (``alarms``) and a table of tests.
    Where nothing drifts, the probability of any alarm over all keys and columns is at most ``monitor.drift.alpha``.
    """

    operator_extra_links = (DriftReportLink(),)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Test all keys; draw the report."""
        from airflow_mlops.ml.fleet.served_drift import fleet_drift

        result, page = fleet_drift(
            self.hook.store(),
            self.hook.registry(self.pipeline),
            self._captured(scope),
            self.monitor.drift,
            private=self.data.private,
            log=self.log.info,
        )
        result["report"] = self.keep_report(context, "Drift report", page)
        if result["verdict"] == "drift":
            self.tell(context, scope, "drift", f"{self.pipeline}: {result['sentence']}")
        return self._record(scope, "drift", result)


class FleetPerformanceCheckOperator(PerformanceCheckOperator):
    """Score the predictions of each key once their outcomes are known, against its version's score at training.

    Verdict ``drop``, ``ok``, ``pending_labels`` or ``not_enough_data``; the result names the keys (``alarms``) and a
    table with a row for each.
    """

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Join outcomes to predictions, and compare all keys."""
        from airflow_mlops.ml.outcomes import labelled_capture

        labels = self.monitor.labels
        if labels is None:
            raise AirflowSkipException("the pipeline has no monitor.labels: performance cannot be known")
        own, delay = self._captured(scope), length(labels.delay)
        capture = labelled_capture(
            self.hook.store(), self.pipeline, scope.required_window, delay, own, rehearsal=not scope.promote
        )
        if capture is None:
            sentence = f"no predictions are older than the label delay of {labels.delay}"
            return self._record(
                scope, "performance", {"verdict": "pending_labels", "sentence": sentence, "alarms": None}
            )
        result = self._judged(scope, context, capture)
        if result["verdict"] == "drop":
            self.tell(context, scope, "performance", f"{self.pipeline}: {result['sentence']}")
        return self._record(scope, "performance", result)

    def _judged(self, scope: RunScope, context: Context, capture: dict[str, Any]) -> dict[str, Any]:
        from airflow_mlops.ml.fleet.alarms import read_alarms
        from airflow_mlops.ml.fleet.performance import fleet_performance
        from airflow_mlops.registry.checks import read_check

        store, labels, judged = self.hook.store(), self.monitor.labels, Window.from_dict(capture["window"])
        # With a delay an earlier window is judged; `window` in the source is that one's.
        seen: Any = {**context, "window": judged}
        source = self.render_template(labels.source if labels else "", seen)
        drift = read_check(store, self.pipeline, "drift", judged, rehearsal=not scope.promote)
        alarms = (drift or {}).get("drift", {}).get("alarms")
        return fleet_performance(
            store,
            self.hook.registry(self.pipeline),
            capture,
            data=self.data,
            labels=labels.model_copy(update={"source": source}),  # type: ignore[union-attr]
            config=self.monitor.performance,
            metrics=self.evaluate.metrics,
            files=self.hook.files(source),
            drifted=read_alarms(store, alarms) if alarms else {},
            log=self.log.info,
            evaluate=self.evaluate,
        )


class FleetStalenessCheckOperator(CheckOperator):
    """Tell the ages of the models that served the window, and of its rows.

    Verdict ``fresh``, ``stale`` (models by ``monitor.max_age``, the rows by ``data.fresh_within``) or
    ``not_enough_data``; the result names the keys (``alarms``).
    """

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Read the records of the versions that served."""
        from airflow_mlops.ml.fleet.ages import fleet_staleness

        result = fleet_staleness(
            self.hook.store(),
            self.hook.registry(self.pipeline),
            self._captured(scope),
            scope.required_window,
            max_age=length(self.monitor.max_age),
            fresh_within=length(self.data.fresh_within),
            rehearsal=not scope.promote,
        )
        if result["verdict"] == "stale":
            self.tell(context, scope, "staleness", f"{self.pipeline}: {result['sentence']}")
        return self._record(scope, "staleness", result)


class FleetRequestRetrainOperator(RequestRetrainOperator):
    """Ask the ledger for a training of the keys that alarmed; skipped, with the reason, where not granted.

    A key whose champion is another version by now has been answered, and asks no more. Returns
    ``{"grant", "reasons", "sentence", "keys"}``; ``keys`` is the digest of the keys that are to be trained, which the
    outlet asset's event carries to ``__train``.

    :param checks: XComs of the monitoring checks, by name (``drift``, ``performance``, ``staleness``).
    """

    def _found(self, scope: RunScope) -> tuple[dict[str, Checked], dict[str, str]]:
        from airflow_mlops.ml.fleet.alarms import put_alarms, read_alarms
        from airflow_mlops.ml.retrain_state import Checked

        store, registry = self.hook.store(), self.hook.registry(self.pipeline)
        checked: dict[str, Checked] = {}
        alarms: dict[str, str] = {}
        for name, result in self.checks.items():
            if not result or name not in self.retrain.when or result["verdict"] in UNDECIDED:
                continue
            judged = result.get("window")
            end = Window.from_dict(judged).end if judged else scope.required_window.end
            asking = read_alarms(store, result["alarms"]) if result["alarms"] else {}
            champions = registry.champions(asking)
            serving = {str(key): version.number for key, version in champions.items()}
            asking = {key: found for key, found in asking.items() if serving.get(key) == found[0]}
            digest = put_alarms(store, asking)
            checked[name] = Checked(digest or "", end, (digest,) if digest else ())
            if digest:
                alarms[name] = result["sentence"]
        return checked, alarms

    def _keys(self, alarmed: Mapping[str, Checked]) -> dict[str, str] | None:
        return {name: one.found[0] for name, one in alarmed.items()}
