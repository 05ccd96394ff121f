"""run_scope: which window, and what may a run change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.exceptions import WindowError
from airflow_mlops.operators.base import run_scope

JANUARY = {"window_start": "2013-01-01T00:00:00+00:00", "window_end": "2013-02-01T00:00:00+00:00"}
FEBRUARY = {"window_start": "2013-02-01T00:00:00+00:00", "window_end": "2013-03-01T00:00:00+00:00"}


def _context(
    params: dict[str, Any] | None = None,
    events: dict[str, list[dict[str, Any]]] | None = None,
    interval: tuple[datetime, datetime] | None = None,
    run_type: str = "manual",
) -> Any:
    start, end = interval or (None, None)
    return {
        "params": params or {},
        "triggering_asset_events": {
            SimpleNamespace(name=name): [SimpleNamespace(extra=extra) for extra in extras]
            for name, extras in _hashable(events or {}).items()
        },
        "dag_run": SimpleNamespace(data_interval_start=start, data_interval_end=end, run_type=run_type),
    }


def _hashable(events: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return events


@pytest.fixture(autouse=True)
def _hashable_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(SimpleNamespace):
        __hash__ = object.__hash__

    monkeypatch.setitem(globals(), "SimpleNamespace", Named)


def test_the_form_goes_before_events_and_events_before_the_interval() -> None:
    interval = (datetime(2013, 3, 1, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC))
    events = {"p.retrain": [FEBRUARY]}
    assert str(run_scope(_context(JANUARY, events, interval)).window) == "2013-01-01 … 2013-02-01"
    assert str(run_scope(_context({}, events, interval)).window) == "2013-02-01 … 2013-03-01"
    assert str(run_scope(_context({}, {}, interval)).window) == "2013-03-01 … 2013-04-01"


def test_an_interval_without_length_is_no_window() -> None:
    now = datetime(2013, 3, 1, tzinfo=UTC)
    scope = run_scope(_context(interval=(now, now)))
    assert scope.window is None
    with pytest.raises(WindowError, match="no data window"):
        _ = scope.required_window


def test_half_a_window_is_an_error() -> None:
    with pytest.raises(WindowError, match="only one"):
        run_scope(_context({"window_start": "2013-01-01"}))


def test_of_events_that_airflow_joined_the_newest_counts_and_the_others_are_named() -> None:
    scope = run_scope(_context(events={"p.predictions": [FEBRUARY, JANUARY]}))
    assert str(scope.window) == "2013-02-01 … 2013-03-01"
    assert scope.passed_over == ("2013-01-01 … 2013-02-01",)


def test_an_event_without_a_window_is_about_the_history_up_to_it() -> None:
    context = _context(events={"p.data": [{"from_trigger": True, "payload": {"version": "abc"}}]})
    for group in context["triggering_asset_events"].values():
        group[0].timestamp = datetime(2013, 4, 1, tzinfo=UTC)
    assert run_scope(context).window is None
    assert str(run_scope(context, timedelta(days=90)).window) == "2013-01-01 … 2013-04-01"
    assert run_scope(context, timedelta(days=90)).start == "new_data"


def test_a_granted_retrain_goes_before_newer_data() -> None:
    scope = run_scope(_context(events={"p.data": [FEBRUARY], "p.retrain": [{**JANUARY, "grant": "g"}]}))
    assert (scope.start, scope.extra["grant"], str(scope.window)) == ("retrain", "g", "2013-01-01 … 2013-02-01")


@pytest.mark.parametrize(
    ("events", "run_type", "params", "start"),
    [
        ({"p.retrain": [{**JANUARY, "grant": "g"}]}, "asset_triggered", {}, "retrain"),
        ({"p.data": [JANUARY]}, "asset_triggered", {}, "new_data"),
        ({"p.data": [JANUARY], "p.retrain": [{**FEBRUARY, "grant": "g"}]}, "asset_triggered", {}, "retrain"),
        ({"p.predictions": [JANUARY]}, "asset_triggered", {}, "event"),
        ({}, "scheduled", JANUARY, "schedule"),
        ({}, "manual", JANUARY, "manual"),
        ({}, "manual", {**JANUARY, "reason": "initial"}, "initial"),
        ({}, "manual", {**JANUARY, "reason": "new labels"}, "new labels"),
        ({}, "manual", {**JANUARY, "reason": "retrain"}, "manual"),
        ({}, "manual", {**JANUARY, "reason": "new_data"}, "manual"),
    ],
)
def test_what_started_a_run(events: Any, run_type: str, params: Any, start: str) -> None:
    scope = run_scope(_context(params, events, run_type=run_type))
    assert scope.start == start
    assert scope.extra.get("grant") == ("g" if "p.retrain" in events else None)


@given(form=st.booleans(), event=st.booleans())
def test_a_run_promotes_only_when_nobody_says_no(form: bool, event: bool) -> None:
    scope = run_scope(_context({"promote": form}, {"p.retrain": [{**JANUARY, "promote": event}]}))
    assert scope.promote is (form and event)
    assert scope.event_extra()["promote"] is (form and event)
