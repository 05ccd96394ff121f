"""Replay a pipeline of level 1 over past windows, in order, through the live scheduler.

For each window ``W``, at the moment ``W.end``:

1. without a champion, train; else predict ``W`` with it and monitor,
2. a granted request of the monitor trains; else the schedule, if it fires in ``(W.start, W.end]``;
   else new data, if the pipeline trains on that. Of a fleet a request trains some keys, and the schedule all of them
   after that.

Run ids follow from the replay's name and the window, so the same command finds what is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow_mlops.cli.live import BackfillError, LiveScheduler
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.window import Window

EVENT_PATIENCE = 30.0


def windows(start: str, end: str, step: str, timezone: str = "UTC") -> list[Window]:
    """Cut ``[start, end)`` into windows of one calendar ``step`` (month, week, day) in ``timezone``.

    :raises BackfillError: a date is malformed, or the last window would not be whole.
    """
    zone = ZoneInfo(timezone)
    first, last = _moment(start, zone), _moment(end, zone)
    found: list[Window] = []
    at = first
    while at < last:
        after = _next(first, len(found) + 1, step)
        if after > last:
            raise BackfillError(
                f"{start} … {end} is not a whole number of {step}s: the last would end on {after:%Y-%m-%d}",
                hint=f"--to {at:%Y-%m-%d}" if found else "choose a later --to or a smaller --step",
            )
        found.append(Window.of(at, after))
        at = after
    if not found:
        raise BackfillError(f"--from {start} is not before --to {end}", hint="--to is the end of the last window")
    return found


def _moment(text: str, zone: ZoneInfo) -> datetime:
    try:
        value = datetime.fromisoformat(text)
    except ValueError as e:
        raise BackfillError(f"{text!r} is not a date", hint="write it as 2013-01-31") from e
    return value if value.tzinfo else value.replace(tzinfo=zone)


def _next(first: datetime, count: int, step: str) -> datetime:
    if step != "month":
        return first + timedelta(days=count * (7 if step == "week" else 1))
    years, month = divmod(first.month - 1 + count, 12)
    if first.day > 28:
        raise BackfillError(
            f"months cannot be counted from day {first.day}", hint="start on one of the days 1 to 28, or use --step day"
        )
    return first.replace(year=first.year + years, month=month + 1)


def fires(cron: str | None, window: Window, timezone: str) -> bool:
    """Whether the schedule ``cron`` has a time in ``(window.start, window.end]``."""
    if not cron:
        return False
    from croniter import croniter

    start = window.start.astimezone(ZoneInfo(timezone))
    return bool(croniter(cron, start).get_next(datetime) <= window.end)


@dataclass(frozen=True)
class Replay:
    """One replay: the same name, dates and ``promote`` give the same run ids.

    :param scheduler: the live Airflow.
    :param config: the pipeline; of level 1.
    :param name: names the replay.
    :param promote: whether it promotes, notifies and spends the retrain budget.
    :param has_champion: asks the registry whether there is a champion now.
    :param say: where progress goes.
    :raises BackfillError: the pipeline is of level 0.
    """

    scheduler: LiveScheduler
    config: PipelineConfig
    name: str
    promote: bool
    has_champion: Callable[[], bool]
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        if not self.config.has_model:
            raise BackfillError(
                f"{self.config.pipeline} has no model: its experiment reads no data, so there is no past to replay",
                hint="start its experiment with `airflow mlops experiment FILE`, or in Airflow's UI",
            )
        if self.config.level == 0:
            raise BackfillError(
                f"{self.config.pipeline} is of level 0: a person starts its runs, so there is no past to replay",
                hint="start its DAGs in Airflow's UI, or make it `level: 1`",
            )

    @property
    def _train(self) -> str:
        return f"{self.config.pipeline}__train"

    @property
    def _predict(self) -> str:
        return f"{self.config.pipeline}__predict"

    @property
    def _monitor(self) -> str:
        return f"{self.config.pipeline}__monitor"

    def dags(self) -> tuple[str, ...]:
        """The DAGs this replay needs."""
        return (self._train, self._predict, *((self._monitor,) if self.config.monitor else ()))

    def run(self, todo: list[Window]) -> Iterator[Window]:
        """Replay the windows in order; yields each one when all its runs have ended.

        :raises BackfillError: the scheduler is not ready, or a run failed.
        """
        self.scheduler.require(*self.dags())
        for window in todo:
            self._window(window)
            yield window

    def _window(self, window: Window) -> None:
        first = self._run_id(window, "initial")
        if self.scheduler.state(self._train, first) is not None or not self.has_champion():
            self._run(self._train, first, window, reason="initial")
            return
        predict = self._run(self._predict, self._run_id(window, "predict"), window)
        monitor = self._monitored(window, predict) if self.config.monitor else None
        asked = bool(monitor) and self._asked(str(monitor))
        if asked:
            self._follow(f"{self.config.pipeline}.retrain", (self._monitor, str(monitor)), window)
        # Of a fleet the request trains the keys that alarmed, and the schedule all of them.
        if asked and self.config.fleet is None:
            return
        if fires(self.config.retrain.schedule if self.config.retrain else None, window, self.config.dag.timezone):
            self._run(self._train, self._run_id(window, "schedule"), window, reason="schedule")
        elif not asked and self.config.retrain and "new_data" in self.config.retrain.when:
            self._new_data(window)

    def _scope(self, window: Window) -> dict[str, Any]:
        times = window.to_dict()
        return {
            "window_start": times["start"],
            "window_end": times["end"],
            "promote": self.promote,
            "replay": self.name,
        }

    def _run_id(self, window: Window, what: str) -> str:
        return f"replay__{self.name}__{window.key}__{what}"

    def _run(self, dag_id: str, run_id: str, window: Window, reason: str | None = None) -> str:
        conf = self._scope(window) | ({"reason": reason} if reason else {})
        return self._done(dag_id, self.scheduler.trigger(dag_id, run_id, conf), window)

    def _done(self, dag_id: str, run_id: str, window: Window) -> str:
        self.say(f"{window.start}: {dag_id}")
        self.scheduler.wait(dag_id, run_id)
        return run_id

    def _monitored(self, window: Window, predict: str) -> str:
        """Wait for the monitoring of a prediction; returns its run id."""
        own = self._run_id(window, "monitor")
        by_event = self.config.monitor is not None and self.config.monitor.schedule is None
        if by_event and self.scheduler.state(self._monitor, own) is None:
            events = self.scheduler.events_of(f"{self.config.pipeline}.predictions", self._predict, predict)
            if events:
                run = self.scheduler.wait_for_run(events[-1][0], self._monitor, EVENT_PATIENCE)
                # One that failed was told about by an earlier command; this one tries again under its own id.
                if run and self.scheduler.state(self._monitor, run) != "failed":
                    return self._done(self._monitor, run, window)
        return self._run(self._monitor, own, window)

    def _asked(self, monitor: str) -> bool:
        return self.scheduler.task_state(self._monitor, monitor, "retrain.request") == "success"

    def _follow(self, asset: str, source: tuple[str, str], window: Window) -> None:
        """Wait for the training that a run's event starts; a lost event is sent again."""
        events = self.scheduler.events_of(asset, *source)
        if not events:
            raise BackfillError(
                f"{source[0]} {source[1]} was granted a retrain but sent no event of {asset}",
                hint="look at its task retrain.request; clear it and repeat the command",
            )
        number, extra = events[-1]
        self._trained(asset, number, extra, window)

    def _new_data(self, window: Window) -> None:
        asset, scope = f"{self.config.pipeline}.data", self._scope(window)
        number = self.scheduler.find_event(asset, scope)
        self._trained(asset, number if number is not None else self.scheduler.send_event(asset, scope), scope, window)

    def _trained(self, asset: str, event: int, extra: Mapping[str, Any], window: Window) -> None:
        run = self.scheduler.wait_for_run(event, self._train, EVENT_PATIENCE)
        if run is None or self.scheduler.state(self._train, run) == "failed":
            # Consumers are idempotent: a claim is honoured once, so sending twice trains once.
            again = self.scheduler.send_event(asset, extra)
            run = self.scheduler.wait_for_run(again, self._train, 2 * EVENT_PATIENCE)
        if run is None:
            raise BackfillError(
                f"an event of {asset} started no run of {self._train}",
                hint="is the DAG switched on, and has it a run that is stuck? See the scheduler's log",
            )
        self._done(self._train, run, window)
