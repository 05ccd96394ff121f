"""What every operator of this package shares: the run's window, errors, evidence and reports."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.config.models import length
from airflow_mlops.exceptions import DataError, MLOpsError, WindowError
from airflow_mlops.operators.cost import push_cost, start_meter
from airflow_mlops.window import Window

if TYPE_CHECKING:
    from airflow.sdk import Context
    from pydantic import BaseModel

    from airflow_mlops.hooks.mlops import MLOpsHook

M = TypeVar("M", bound="BaseModel")


def section(model: type[M], value: M | Mapping[str, Any] | None) -> M:
    """Return a section of the pipeline vocabulary, checked; a mapping is written as in YAML."""
    return value if isinstance(value, model) else model.model_validate(value or {})


@dataclass(frozen=True)
class RunScope:
    """What a run is about, read once from its trigger form, asset events or data interval.

    :param window: the half-open window, or ``None`` for a run about all the data.
    :param promote: whether the run may change what is served, notify, and spend the retrain budget.
    :param replay: id of the replay of the past that this run belongs to.
    :param start: ``schedule``, ``retrain``, ``new_data``, ``event``, ``manual``, or the ``reason`` of the trigger form.
    :param extra: extra of the asset event that started the run.
    :param passed_over: windows of events that Airflow joined into this run and that are not its window.
    :param run: ``{"dag_id", "run_id"}``; ``None`` outside of a task.
    """

    window: Window | None
    promote: bool
    replay: str | None
    start: str
    extra: dict[str, Any]
    passed_over: tuple[str, ...] = ()
    run: dict[str, str] | None = None

    @property
    def required_window(self) -> Window:
        """The window; raises :class:`WindowError` where the run has none."""
        if self.window is None:
            raise _no_window()
        return self.window

    def event_extra(self) -> dict[str, Any]:
        """What the next DAG in the chain needs to work on the same window."""
        window = self.window.to_dict() if self.window else {"start": None, "end": None}
        return {
            "window_start": window["start"],
            "window_end": window["end"],
            "promote": self.promote,
            "replay": self.replay,
        }


def _no_window() -> WindowError:
    return WindowError(
        "this run has no data window: it was started without one and has no data interval",
        hint="start it with window_start and window_end in the trigger form, put the DAG on a schedule, or, for runs "
        "that an asset event starts, set data.window or give the event window_start and window_end as its extra",
    )


class _NoWindow:
    """What templates see as ``window`` in a run that has none."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _no_window()

    def __str__(self) -> str:
        raise _no_window()

    def __bool__(self) -> bool:
        return False


def run_scope(context: Context, history: timedelta | None = None) -> RunScope:
    """Read the scope of a run: trigger form, else asset events, else the data interval.

    An event without a window (a file arrived, another DAG wrote the data) is about the ``history`` up to it.

    Airflow joins events that arrive together into one run. A granted retrain goes before new data, and
    of several the newest window counts; the others are named in ``passed_over``.
    """
    params = dict(context.get("params") or {})
    events = [
        (asset.name, dict(event.extra or {}), getattr(event, "timestamp", None))
        for asset, group in dict(context.get("triggering_asset_events") or {}).items()
        for event in group
    ]
    events.sort(key=lambda e: (e[0].endswith(".retrain"), str(e[1].get("window_end") or ""), str(e[2])))
    name, extra, when = events[-1] if events else ("", {}, None)
    passed_over: list[str] = []
    ti, dag_run = context.get("ti"), context.get("dag_run")
    run_type = str(getattr(dag_run, "run_type", "") or "").rpartition(".")[2].lower()

    window: Window | None = None
    if params.get("window_start") and params.get("window_end"):
        window = Window.of(params["window_start"], params["window_end"])
    elif params.get("window_start") or params.get("window_end"):
        raise WindowError(
            "only one of window_start and window_end is given",
            hint="give both, or neither to use the run's own interval",
        )
    elif extra.get("window_start") and extra.get("window_end"):
        window = Window.of(extra["window_start"], extra["window_end"])
        spans = {str(Window.of(e["window_start"], e["window_end"])) for _, e, _ in events if e.get("window_start")}
        passed_over = sorted(spans - {str(window)})
    elif when is not None and history:
        window = Window.of(when - history, when)
    elif dag_run is not None:
        start, end = getattr(dag_run, "data_interval_start", None), getattr(dag_run, "data_interval_end", None)
        if start is not None and end is not None and start < end:
            window = Window.of(start, end)

    if events:
        start_kind = {"retrain": "retrain", "data": "new_data"}.get(name.rpartition(".")[2], "event")
    elif run_type == "scheduled":
        start_kind = "schedule"
    else:
        reason = str(params.get("reason") or "manual")
        # Only an event can bring a grant, whatever a person writes.
        start_kind = "manual" if reason in ("retrain", "new_data", "event") else reason
    return RunScope(
        window=window,
        promote=bool(params.get("promote", True)) and bool(extra.get("promote", True)),
        replay=params.get("replay") or extra.get("replay"),
        start=start_kind,
        extra=extra,
        passed_over=tuple(passed_over),
        run={"dag_id": str(ti.dag_id), "run_id": str(ti.run_id)} if ti is not None else None,
    )


class MLOpsOperator(BaseOperator):
    """Base of all operators here: subclasses implement :meth:`work`, one library call and its evidence.

    An error that a retry cannot mend fails the task at once; one that a retry can mend follows the
    task's ``retries``. The message stands in the log before Airflow's traceback.

    :param pipeline: the pipeline's name; groups models, reports and history.
    :param mlops_conn_id: connection of type ``mlops``; default: ``[mlops] mlops_conn_id``.
    :param notify: ``{"events": […], "notifiers": [{"class": …, "args": …}]}``.
    :param history: how far a run that an event without a window started looks back, like ``90d``.
    """

    template_fields: Sequence[str] = ("pipeline",)
    ui_color = "#e6f2ff"

    def __init__(
        self,
        *,
        pipeline: str,
        mlops_conn_id: str | None = None,
        notify: dict[str, Any] | None = None,
        history: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.history = length(history)
        self.pipeline = pipeline
        self.mlops_conn_id = mlops_conn_id
        self.notify = notify

    @cached_property
    def hook(self) -> MLOpsHook:
        """Store, data and registry of this operator."""
        from airflow_mlops.hooks.mlops import MLOpsHook

        return MLOpsHook(self.mlops_conn_id)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MLOpsError as e:
            self.log.error("%s", e)
            if e.retryable:
                raise
            # Without the steps through this package, but with those of the code or library that raised.
            raise AirflowFailException(str(e)) from e.__cause__

    @property
    def _timeout(self) -> float | None:
        """Seconds that the task may take, if there is a limit."""
        return self.execution_timeout.total_seconds() if self.execution_timeout else None

    def data_window(self, scope: RunScope) -> Window | None:
        """The window whose rows this operator reads; templates see it as ``window``."""
        return scope.window

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render with ``window`` added to Airflow's own template variables."""
        with self._errors():
            window = self.data_window(run_scope(context, self.history))
            context["window"] = window or _NoWindow()  # type: ignore[typeddict-unknown-key]
            super().render_template_fields(context, jinja_env)

    def execute(self, context: Context) -> Any:
        """Run :meth:`work`; turn its errors into Airflow's: with or without a retry."""
        with self._errors():
            scope = run_scope(context, self.history)
            if scope.passed_over:
                self.log.warning(
                    "Events for several windows arrived together; this run works on %s and passes over %s",
                    scope.window,
                    ", ".join(scope.passed_over),
                )
            meter = start_meter(context)
            result = self.work(scope, context)
            push_cost(context, meter)
            return result

    @abstractmethod
    def work(self, scope: RunScope, context: Context) -> Any:
        """Do the operator's work and return a small, plain XCom value."""

    def operation(self, context: Context, action: str, *inputs: Any) -> str:
        """Id of this operation: the same for every try of this task, so that a write happens once."""
        from airflow_mlops.registry.log import op_id

        ti = context["ti"]
        return op_id(ti.dag_id, ti.run_id, ti.task_id, ti.map_index, action, *inputs)

    def form_path(self, context: Context, field: str) -> str | None:
        """A path or ``s3://`` URI of the trigger form, if one is given.

        :raises DataError: it leaves the data root: whoever may start a run may not use any file of the worker.
        """
        asked: str | None = (context.get("params") or {}).get(field)
        if not asked:
            return None
        # A template could become anything once it is filled in, and a connection is not the form's to choose.
        template = any(mark in asked for mark in ("{{", "{%", "{#", "${"))
        if template or asked.startswith(("/", "file:")) or ".." in asked.split("/"):
            raise DataError(
                f"the form's {field} {asked!r} leaves the data root",
                hint=f"give a path below {self.hook.data_root}, or an s3:// URI",
            )
        return asked

    def record_check(self, scope: RunScope, name: str, result: dict[str, Any]) -> None:
        """Write the newest result of ``name`` for the run's window; a run about all the data has no place for it."""
        from airflow_mlops.registry.checks import write_check

        if scope.window is not None:
            write_check(
                self.hook.store(),
                self.pipeline,
                scope.window,
                name,
                result,
                rehearsal=not scope.promote,
                start=scope.start,
                replay=scope.replay,
                run=scope.run,
            )

    def keep_report(self, context: Context, name: str, html: str | bytes) -> str:
        """Store a readable report, link it from the task, and return its digest."""
        from airflow_mlops.links.reports import persist_report, report_url
        from airflow_mlops.store import layout

        data = html.encode() if isinstance(html, str) else html
        digest = hashlib.sha256(data).hexdigest()
        dag_id = context["ti"].dag_id
        self.hook.store().put(layout.report(dag_id, digest), data)
        persist_report(context, name, report_url(dag_id, digest))
        return digest

    def keep_card(self, context: Context, number: int) -> None:
        """Note what the steps up to here cost, make the version's model card anew, store it and link it."""
        from airflow_mlops.ml.card import keep_card
        from airflow_mlops.operators.cost import note_costs

        registry = self.hook.registry(self.pipeline)
        note_costs(registry, number, context, self.hook.price())
        note, page = keep_card(registry.get(number), self.hook.store())
        registry.annotate(number, "card", note, op_id=self.operation(context, "card", number, note))
        self.keep_report(context, "Model card", page)

    def emit(self, scope: RunScope, name: str, value: float = 1, **tags: str) -> None:
        """Send one of the package's metrics; a replay of the past without ``promote`` stays silent."""
        if scope.promote:
            from airflow_mlops.notifications.metrics import emit

            emit(name, value, {"pipeline": self.pipeline, **tags})

    def tell(self, context: Context, scope: RunScope, event: str, message: str) -> None:
        """Notify whoever asked for ``event``; a replay of the past without ``promote`` stays silent."""
        if not self.notify or not scope.promote:
            return
        from airflow_mlops.notifications.dispatch import notify

        notify(
            self.notify["events"],
            self.notify["notifiers"],
            event,
            context,
            message,
            allowed_imports=self.hook.allowed_imports,
        )
