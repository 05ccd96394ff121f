from __future__ import annotations

import itertools
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.cli.backfill import Replay, fires, windows
from airflow_mlops.cli.live import BackfillError
from airflow_mlops.config import PipelineConfig, load_pipeline
from airflow_mlops.config.models import Fleet
from airflow_mlops.window import Window

PIPELINES = Path(__file__).parents[3] / "dags" / "pipelines"
JAN = Window.of("2013-01-01", "2013-02-01")
FEB = Window.of("2013-02-01", "2013-03-01")
MAR = Window.of("2013-03-01", "2013-04-01")


class FakeScheduler:
    """Runs end at once; tests say what each DAG does."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], dict[str, Any]] = {}
        self.states: dict[tuple[str, str], str] = {}
        self.events: list[dict[str, Any]] = []
        self.granted: set[str] = set()
        self.lost: set[str] = set()
        self.fail: set[tuple[str, str]] = set()
        self.champion = False
        self.order: list[tuple[str, str]] = []

    def require(self, *dag_ids: str) -> None:
        self.required = dag_ids

    def state(self, dag_id: str, run_id: str) -> str | None:
        return self.states.get((dag_id, run_id))

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> str:
        name, n = run_id, 1
        while (state := self.state(dag_id, name)) is not None:
            if state != "failed":
                return name
            n += 1
            name = f"{run_id}__{n}"
        self._start(dag_id, name, dict(conf))
        return name

    def _start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        self.runs[dag_id, run_id] = conf
        what = dag_id.rpartition("__")[2]
        start = conf["window_start"][:7]
        self.order.append((what, start))
        failed = (what, start) in self.fail
        self.states[dag_id, run_id] = "failed" if failed else "success"
        if failed:
            return
        if what == "train" and conf["promote"]:
            self.champion = True
        if what == "predict":
            self._event("flight_delays.predictions", conf, dag_id, run_id)
        if what == "monitor" and start in self.granted:
            self._event("flight_delays.retrain", conf | {"grant": "g"}, dag_id, run_id)

    def _event(self, asset: str, extra: dict[str, Any], dag_id: str | None, run_id: str | None) -> int:
        self.events.append({"asset": asset, "extra": extra, "source": (dag_id, run_id), "run": {}})
        number = len(self.events) - 1
        if asset in self.lost:
            self.lost.discard(asset)
            return number
        follower = {"predictions": "flight_delays__monitor"}.get(asset.split(".")[1], "flight_delays__train")
        self._start(follower, f"asset_{number}", extra)
        self.events[number]["run"][follower] = f"asset_{number}"
        return number

    def wait(self, dag_id: str, run_id: str) -> None:
        if self.states[dag_id, run_id] == "failed":
            raise BackfillError(f"the run {run_id} of {dag_id} failed")

    def events_of(self, asset: str, dag_id: str, run_id: str) -> list[tuple[int, dict[str, Any]]]:
        return [
            (i, e["extra"]) for i, e in enumerate(self.events) if (e["asset"], e["source"]) == (asset, (dag_id, run_id))
        ]

    def find_event(self, asset: str, extra: dict[str, Any]) -> int | None:
        found = [i for i, e in enumerate(self.events) if e["asset"] == asset and extra.items() <= e["extra"].items()]
        return found[-1] if found else None

    def send_event(self, asset: str, extra: dict[str, Any]) -> int:
        return self._event(asset, dict(extra), None, None)

    def wait_for_run(self, event: int, dag_id: str, patience: float) -> str | None:
        return self.events[event]["run"].get(dag_id)

    def task_state(self, dag_id: str, run_id: str, task_id: str) -> str | None:
        start = self.runs[dag_id, run_id]["window_start"][:7]
        return "success" if start in self.granted else "skipped"


def replay(scheduler: FakeScheduler, config: PipelineConfig | None = None, *, promote: bool = True) -> Replay:
    return Replay(
        scheduler=scheduler,  # type: ignore[arg-type]
        config=config or load_pipeline(PIPELINES / "flight_delays.yaml"),
        name="r",
        promote=promote,
        has_champion=lambda: scheduler.champion,
        say=lambda text: None,
    )


def test_each_window_predicts_monitors_and_trains_for_the_first_reason_that_holds() -> None:
    scheduler = FakeScheduler()
    scheduler.granted = {"2013-03"}
    todo = windows("2013-01-01", "2013-05-01", "month")
    assert list(replay(scheduler).run(todo)) == todo
    assert scheduler.order == [
        ("train", "2013-01"),  # no champion yet
        ("predict", "2013-02"), ("monitor", "2013-02"), ("train", "2013-02"),  # new data
        ("predict", "2013-03"), ("monitor", "2013-03"), ("train", "2013-03"),  # granted; goes before the schedule
        ("predict", "2013-04"), ("monitor", "2013-04"), ("train", "2013-04"),  # new data
    ]  # fmt: skip
    conf = scheduler.runs["flight_delays__train", "replay__r__20130101T000000Z-20130201T000000Z__initial"]
    assert conf["reason"] == "initial"
    assert conf["window_end"] == "2013-02-01T00:00:00+00:00"
    assert (conf["promote"], conf["replay"]) == (True, "r")


def test_of_a_fleet_the_schedule_trains_all_keys_after_those_that_were_asked_for() -> None:
    scheduler = FakeScheduler()
    scheduler.champion, scheduler.granted = True, {"2013-03", "2013-04"}
    one = load_pipeline(PIPELINES / "flight_delays.yaml")
    todo = windows("2013-03-01", "2013-05-01", "month")
    assert list(replay(scheduler, one.model_copy(update={"fleet": Fleet(key="dest")})).run(todo)) == todo
    assert scheduler.order == [
        # The request, and the schedule of April 1.
        ("predict", "2013-03"), ("monitor", "2013-03"), ("train", "2013-03"), ("train", "2013-03"),
        # The request alone: no new data after it.
        ("predict", "2013-04"), ("monitor", "2013-04"), ("train", "2013-04"),
    ]  # fmt: skip


def test_the_schedule_goes_before_new_data() -> None:
    scheduler = FakeScheduler()
    scheduler.champion = True
    list(replay(scheduler).run([MAR]))
    assert [c.get("reason") for (d, _), c in scheduler.runs.items() if d.endswith("train")] == ["schedule"]
    assert not [e for e in scheduler.events if e["asset"] == "flight_delays.data"]


def test_the_same_command_again_starts_nothing_twice() -> None:
    scheduler = FakeScheduler()
    scheduler.granted = {"2013-03"}
    todo = windows("2013-01-01", "2013-05-01", "month")
    list(replay(scheduler).run(todo))
    before = list(scheduler.order)
    assert list(replay(scheduler).run(todo)) == todo
    assert scheduler.order == before


def test_a_failed_run_stops_and_is_tried_again_by_the_next_command() -> None:
    scheduler = FakeScheduler()
    scheduler.champion = True
    scheduler.fail = {("predict", "2013-02")}
    with pytest.raises(BackfillError, match="flight_delays__predict failed"):
        list(replay(scheduler).run([FEB]))
    scheduler.fail = set()
    assert list(replay(scheduler).run([FEB])) == [FEB]
    assert [run for dag, run in scheduler.runs if dag.endswith("predict")][-1].endswith("__predict__2")


@pytest.mark.parametrize("what", ["monitor", "train"])
def test_a_failed_run_that_an_event_started_is_tried_again(what: str) -> None:
    scheduler = FakeScheduler()
    scheduler.champion = True
    scheduler.fail = {(what, "2013-02")}
    with pytest.raises(BackfillError, match=f"{what} failed"):
        list(replay(scheduler).run([FEB]))
    scheduler.fail = set()
    assert list(replay(scheduler).run([FEB])) == [FEB]


@pytest.mark.parametrize("asset", ["flight_delays.predictions", "flight_delays.retrain", "flight_delays.data"])
def test_a_lost_event_is_made_good(asset: str) -> None:
    scheduler = FakeScheduler()
    scheduler.champion = True
    scheduler.granted = {"2013-02"} if asset.endswith("retrain") else set()
    scheduler.lost = {asset}
    assert list(replay(scheduler).run([FEB])) == [FEB]
    assert [what for what, _ in scheduler.order] == ["predict", "monitor", "train"]


def test_without_promote_every_window_trains_and_judges() -> None:
    scheduler = FakeScheduler()
    list(replay(scheduler, promote=False).run([JAN, FEB]))
    assert scheduler.order == [("train", "2013-01"), ("train", "2013-02")]
    assert all(conf["promote"] is False for conf in scheduler.runs.values())


def test_level_0_is_refused() -> None:
    with pytest.raises(BackfillError, match="level 0"):
        list(replay(FakeScheduler(), load_pipeline(PIPELINES / "breast_cancer.yaml")).run([JAN]))


def test_months_weeks_and_days() -> None:
    assert [w.key for w in windows("2013-01-01", "2013-03-01", "month")] == [JAN.key, FEB.key]
    assert len(windows("2013-01-01", "2013-01-15", "week")) == 2
    assert len(windows("2013-01-01", "2013-01-04", "day")) == 3


def test_windows_follow_the_time_zone_across_a_clock_change() -> None:
    march = windows("2013-03-01", "2013-04-01", "month", "America/New_York")[0]
    assert (march.start.isoformat(), march.end.isoformat()) == (
        "2013-03-01T00:00:00-05:00",
        "2013-04-01T00:00:00-04:00",
    )


@pytest.mark.parametrize(
    ("start", "end", "step", "message"),
    [
        ("2013-01-01", "2013-02-15", "month", "whole number of months"),
        ("2013-02-01", "2013-01-01", "month", "not before"),
        ("2013-01-31", "2013-05-01", "month", "day 31"),
        ("January", "2013-05-01", "month", "is not a date"),
    ],
)
def test_dates_that_make_no_windows(start: str, end: str, step: str, message: str) -> None:
    with pytest.raises(BackfillError, match=message):
        windows(start, end, step)


@settings(max_examples=60, deadline=None)
@given(
    start=st.dates(date(2000, 1, 1), date(2030, 1, 1)),
    count=st.integers(1, 60),
    step=st.sampled_from(["week", "day"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
)
def test_windows_tile_the_range(start: date, count: int, step: str, zone: str) -> None:
    end = start + timedelta(days=count * (7 if step == "week" else 1))
    found = windows(start.isoformat(), end.isoformat(), step, zone)
    assert len(found) == count
    assert all(a.end == b.start for a, b in itertools.pairwise(found))
    assert (str(found[0].start), str(found[-1].end)) == (start.isoformat(), end.isoformat())


@pytest.mark.parametrize(
    ("cron", "window", "expected"),
    [
        ("0 0 1 */3 *", MAR, True),  # April 1st, the window's end, belongs to it
        ("0 0 1 */3 *", FEB, False),
        ("0 0 1 */3 *", JAN, False),  # January 1st, the window's start, does not
        ("@weekly", JAN, True),
        (None, JAN, False),
    ],
)
def test_when_the_schedule_fires(cron: str | None, window: Window, expected: bool) -> None:
    assert fires(cron, window, "UTC") is expected
