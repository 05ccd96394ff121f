"""Watch what is served, how old it is and what it costs. Each check is evidence, never a red task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.config.models import Data, Evaluate, Monitor, Validate, length
from airflow_mlops.exceptions import DataNotFound, EvaluationError
from airflow_mlops.links.reports import DriftReportLink, SkewReportLink, ValidationReportLink
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section
from airflow_mlops.window import Window

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.registry.registry import Version


class CheckOperator(MLOpsOperator):
    """Base of the monitoring checks: finds the window's capture and the version that made it.

    A run without predictions for its window is skipped with that reason.

    :param data: the ``data`` section as in YAML.
    :param monitor: the ``monitor`` section as in YAML.
    """

    def __init__(
        self, *, data: Data | Mapping[str, Any], monitor: Monitor | Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.data = section(Data, data)
        self.monitor = section(Monitor, monitor)

    def _captured(self, scope: RunScope) -> dict[str, Any]:
        from airflow_mlops.ml.prediction import find_capture

        if scope.window is None:
            raise AirflowSkipException("these predictions were made without a window: nothing was captured to check")
        try:
            return find_capture(self.hook.store(), self.pipeline, scope.window, rehearsal=not scope.promote)
        except DataNotFound as e:
            raise AirflowSkipException(f"{e.message}: nothing to check") from None

    def _capture(self, scope: RunScope) -> tuple[dict[str, Any], Version]:
        capture = self._captured(scope)
        return capture, self.hook.registry(self.pipeline).get(capture["version"])

    def _record(self, scope: RunScope, name: str, result: dict[str, Any]) -> dict[str, Any]:
        from airflow_mlops.notifications.metrics import of_check

        self.record_check(scope, name, result)
        for metric, value, tags in of_check(name, result):
            self.emit(scope, metric, value, **tags)
        self.log.info("%s: %s. %s", name.capitalize(), result["verdict"], result["sentence"])
        # Columns are in the report and in the store; XCom keeps the verdict, and the names that a retrain is asked for.
        short = {key: value for key, value in result.items() if key != "columns"}
        if drifted := [one["name"] for one in result.get("columns") or () if one.get("drifted")]:
            short["drifted"] = drifted
        return short


class QualityCheckOperator(CheckOperator):
    """Check the scored inputs against the pipeline's expectations: ``passed`` or ``failed``, with a report.

    :param validate: the ``validate`` section as in YAML.
    """

    operator_extra_links = (ValidationReportLink(),)

    def __init__(self, *, validate: Validate | Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.validate = section(Validate, validate)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Run the expectations on the window's inputs."""
        from airflow_mlops.ml.quality import quality

        capture, version = self._capture(scope)
        result, html = quality(self.hook.store(), capture, version, self.validate, self.data)
        result["report"] = self.keep_report(context, "Validation report", html)
        return self._record(scope, "quality", result)


class DriftCheckOperator(CheckOperator):
    """Compare the scored inputs and predictions with the champion's training data.

    Verdict ``drift``, ``no_drift`` or ``not_enough_data``; the report is linked from the task.
    """

    operator_extra_links = (DriftReportLink(),)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Decide by effect and significance; draw the report."""
        from airflow_mlops.ml.served_drift import drift

        capture, version = self._capture(scope)
        if not version.record["snapshot"]:
            sentence = f"v{version.number} was trained elsewhere: there are no rows here to compare with"
            return self._record(scope, "drift", {"verdict": "not_enough_data", "sentence": sentence})
        result, html = drift(
            self.hook.store(),
            capture,
            version,
            self.monitor.drift,
            allowed_imports=self.hook.allowed_imports,
            trusted_types=self.hook.trusted_types,
            private=self.data.private,
            verifier=self.hook.verifier(),
            log=self.log.info,
        )
        result["report"] = self.keep_report(context, "Drift report", html)
        if result["verdict"] == "drift":
            self.tell(context, scope, "drift", f"{self.pipeline}: {result['sentence']}")
        return self._record(scope, "drift", result)


class FeatureSkewCheckOperator(CheckOperator):
    """Replay scored rows through the training feature code and compare row by row, joined by ``data.id``.

    Verdict ``skew``, ``no_skew`` or ``not_enough_data``; the report is linked from the task. Skipped where
    ``monitor.skew`` is not set.
    """

    operator_extra_links = (SkewReportLink(),)
    template_fields: Sequence[str] = (*CheckOperator.template_fields, "skew_source")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.skew_source = self.monitor.skew.source if self.monitor.skew else None

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Replay, compare, draw the report."""
        from airflow_mlops.ml.served_skew import skew

        if self.monitor.skew is None:
            raise AirflowSkipException("the pipeline has no monitor.skew")
        capture, version = self._capture(scope)
        result, html = skew(
            self.hook.store(),
            capture,
            version,
            self.monitor.skew.model_copy(update={"source": self.skew_source}),
            data=self.data,
            files=self.hook.files(self.skew_source),
            allowed_imports=self.hook.allowed_imports,
        )
        result["report"] = self.keep_report(context, "Feature skew report", html)
        if result["verdict"] == "skew":
            self.tell(context, scope, "skew", f"{self.pipeline}: {result['sentence']}")
        return self._record(scope, "skew", result)


class PerformanceCheckOperator(CheckOperator):
    """Score the champion's predictions once their outcomes are known.

    Verdict ``ok``, ``drop``, ``pending_labels`` or ``not_enough_data``; the cause of a drop is told by what the checks
    of drift and feature skew said about the same window. With ``monitor.performance.estimate`` the newest predictions,
    whose outcomes are to come, are estimated beside it.

    :param evaluate: the ``evaluate`` section as in YAML, for the default metric.
    """

    def __init__(self, *, evaluate: Evaluate | Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.evaluate = section(Evaluate, evaluate)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Join outcomes to predictions and compare with the score at promotion; estimate what has none."""
        config = self.monitor.performance
        if self.monitor.labels is None and not config.estimate:
            raise AirflowSkipException("the pipeline has no monitor.labels: performance cannot be known")
        own, version = self._capture(scope)
        result = self._measured(scope, own, context)
        if result["verdict"] == "drop":
            self.tell(context, scope, "performance", f"{self.pipeline}: {result['sentence']}")
        if config.estimate:
            result |= self._estimated(own, version, result["sentence"])
        return self._record(scope, "performance", result)

    def _measured(self, scope: RunScope, own: dict[str, Any], context: Context) -> dict[str, Any]:
        from airflow_mlops.ml.outcomes import labelled_capture, performance

        labels = self.monitor.labels
        if labels is None:
            return {"verdict": "pending_labels", "sentence": "the pipeline has no monitor.labels"}
        store, rehearsal = self.hook.store(), not scope.promote
        delay = length(labels.delay)
        capture = labelled_capture(store, self.pipeline, scope.required_window, delay, own, rehearsal=rehearsal)
        if capture is None:
            sentence = f"no predictions are older than the label delay of {labels.delay}"
            return {"verdict": "pending_labels", "sentence": sentence}
        # With a delay an earlier window is judged; `window` in the source is that one's.
        judged: Any = {**context, "window": Window.from_dict(capture["window"])}
        source = self.render_template(labels.source, judged)
        return performance(
            store,
            capture,
            self.hook.registry(self.pipeline).get(capture["version"]),
            data=self.data,
            labels=labels.model_copy(update={"source": source}),
            config=self.monitor.performance,
            metrics=self.evaluate.metrics,
            evaluate=self.evaluate,
            files=self.hook.files(source),
            rehearsal=rehearsal,
        )

    def _estimated(self, capture: dict[str, Any], version: Version, sentence: str) -> dict[str, Any]:
        from airflow_mlops.ml.outcomes import estimated

        try:
            found = estimated(
                self.hook.store(), capture, version, config=self.monitor.performance, metrics=self.evaluate.metrics
            )
        except EvaluationError as e:
            # What was measured stands; that nothing could be estimated is told with it.
            self.log.warning("%s", e)
            return {"estimate": None, "sentence": f"{sentence}; not estimated: {e.message}"}
        return {"estimate": found, "sentence": f"{sentence}; {found['sentence']}"}


class StalenessCheckOperator(CheckOperator):
    """Tell the ages of the model and its reference, of the scored rows, and of the last known outcomes.

    Verdict ``fresh``, ``stale`` (the model by ``monitor.max_age``, the rows by ``data.fresh_within``) or
    ``not_enough_data``; counted from the window's end.
    """

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Read the version's record and what earlier checks found."""
        from airflow_mlops.ml.staleness import staleness

        _, version = self._capture(scope)
        result = staleness(
            self.hook.store(),
            version,
            scope.required_window,
            max_age=length(self.monitor.max_age),
            fresh_within=length(self.data.fresh_within),
            rehearsal=not scope.promote,
        )
        if result["verdict"] == "stale":
            self.tell(context, scope, "staleness", f"{self.pipeline}: {result['sentence']}")
        return self._record(scope, "staleness", result)


class SystemCheckOperator(CheckOperator):
    """Compare duration, memory and processor time of the window's prediction and the newest training with earlier ones.

    Verdict ``normal``, ``alarm`` or ``not_enough_data``. Skipped where ``monitor.system`` is not set.
    """

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Read what the runs have noted."""
        from airflow_mlops.ml.system_metrics import system

        if self.monitor.system is None:
            raise AirflowSkipException("the pipeline has no monitor.system")
        registry = self.hook.registry(self.pipeline)
        window, rehearsal = scope.required_window, not scope.promote
        result = system(self.hook.store(), registry, window, self.monitor.system, rehearsal=rehearsal)
        if result["verdict"] == "alarm":
            self.tell(context, scope, "system", f"{self.pipeline}: {result['sentence']}")
        return self._record(scope, "system", result)
