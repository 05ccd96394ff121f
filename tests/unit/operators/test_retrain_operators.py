"""From the monitor's checks to the ledger's answer, the asset's event, and whoever is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.sdk import Asset, BaseNotifier
from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.config.models import Retrain
from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.notifications import dispatch
from airflow_mlops.operators.retrain import (
    ClaimRetrainOperator,
    RequestExperimentOperator,
    RequestRetrainOperator,
)
from airflow_mlops.registry.checks import read_checks

RETRAIN = Asset(name="churn.retrain", uri="x-mlops://churn/retrain")
DRIFT = {"verdict": "drift", "sentence": "drift in 1 of 9 columns", "version": 1}
CALM = {"verdict": "no_drift", "sentence": "no drift in 9 columns", "version": 1}
TWICE = {"when": ["drift", "performance"], "confirm": "2 of 3"}
told: list[str] = []


class Recorder(BaseNotifier):
    def notify(self, context: Any) -> None:
        told.append(f"{context['mlops']['event']}: {context['mlops']['message']}")


@pytest.fixture(autouse=True)
def recorder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told.clear()
    monkeypatch.setattr(dispatch, "load_notifier", lambda path, allowed=(): Recorder)
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}/store")


def window(day: int) -> dict[str, Any]:
    return {"window_start": f"2013-06-{day:02d}", "window_end": f"2013-06-{day + 1:02d}"}


def context(run_id: str, events: Any = None, **params: Any) -> dict[str, Any]:
    ti = MagicMock(spec=["dag_id", "run_id", "task_id", "map_index", "xcom_push", "xcom_pull"])
    ti.dag_id, ti.run_id, ti.task_id, ti.map_index = "churn__any", run_id, "any", -1
    run = SimpleNamespace(run_type="manual", data_interval_start=None, data_interval_end=None)
    outlets = {RETRAIN: SimpleNamespace(extra=None)}
    return {"ti": ti, "params": params, "dag_run": run, "outlet_events": outlets, "triggering_asset_events": events}


@pytest.fixture
def ask() -> Callable[..., tuple[dict[str, Any] | None, Any]]:
    """``ask(day, drift=…)``: one run of the request; returns the event's extra, and the result or the skip's reason."""

    def run(
        day: int, retrain: Any = TWICE, events: tuple[str, ...] = ("retrain", "suppressed"), **checks: Any
    ) -> tuple[dict[str, Any] | None, Any]:
        params = window(day) | {k: checks.pop(k) for k in ("promote",) if k in checks}
        operator = RequestRetrainOperator(
            task_id="request", pipeline="churn", checks=checks, retrain=retrain, outlets=[RETRAIN],
            notify={"events": [*events], "notifiers": [{"class": "any"}]},
        )  # fmt: skip
        found = context(f"run {day}", **params)
        try:
            result = operator.execute(found)  # type: ignore[arg-type]
        except AirflowSkipException as e:
            result = str(e)
        return found["outlet_events"][RETRAIN].extra, result

    return run


def claim(run_id: str, extra: dict[str, Any], retrain: Any = TWICE, events: tuple[str, ...] = ()) -> Any:
    operator = ClaimRetrainOperator(
        task_id="claim", pipeline="churn", retrain=retrain,
        notify={"events": [*events], "notifiers": [{"class": "any"}]},
    )  # fmt: skip
    asset = MagicMock()
    asset.name = "churn.retrain"
    return operator.execute(context(run_id, {asset: [SimpleNamespace(extra=extra)]}))  # type: ignore[arg-type]


def test_an_alarm_waits_for_its_confirmation_and_people_hear_why(ask: Any) -> None:
    extra, reason = ask(1, drift=DRIFT)
    assert (extra, reason) == (None, "suppressed: drift 1 of 2 confirmations")
    assert told == ["suppressed: churn: suppressed: drift 1 of 2 confirmations"]
    assert ask(2, drift=CALM) == (None, "no alarm that this pipeline retrains on")
    extra, result = ask(3, drift=DRIFT)
    assert extra["grant"] == result["grant"]
    assert (extra["window_end"], extra["reasons"]) == ("2013-06-04T00:00:00+00:00", ["drift"])
    assert told[1:] == ["retrain: churn: retrain, because of drift"]
    (first, last) = read_checks(MLOpsHook().store(), "churn")
    assert (first["request"]["granted"], first["request"]["held"]) == (False, ["confirm"])
    assert last["request"]["granted"]


def test_verdicts_without_a_decision_are_no_checks(ask: Any) -> None:
    ask(1, drift=DRIFT)
    for day, verdict in ((2, "not_enough_data"), (3, "pending_labels")):
        ask(day, drift=DRIFT | {"verdict": verdict})
        ask(day, drift=None)
    assert ask(4, drift=DRIFT)[0] is not None


def test_the_same_column_must_have_drifted(ask: Any) -> None:
    assert ask(1, drift=DRIFT | {"drifted": ["wind"]})[0] is None
    assert ask(2, drift=DRIFT | {"drifted": ["rain"]})[1] == "suppressed: drift 1 of 2 confirmations"
    assert ask(3, drift=DRIFT | {"drifted": ["rain", "dew"]})[0] is not None


def test_a_judgement_of_older_predictions_counts_for_their_window(ask: Any) -> None:
    late = {"start": "2013-05-01T00:00:00+00:00", "end": "2013-05-02T00:00:00+00:00"}
    drop = {"verdict": "drop", "sentence": "worse", "version": 1, "window": late}
    assert ask(1, performance=drop)[0] is None
    assert ask(2, performance=drop)[1] == "suppressed: performance 1 of 2 confirmations"
    assert ask(3, performance=drop | {"window": {**late, "end": "2013-05-03T00:00:00+00:00"}})[0] is not None


def test_a_task_that_runs_again_asks_nothing_new(ask: Any) -> None:
    ask(1, drift=DRIFT)
    first, again = ask(2, drift=DRIFT), ask(2, drift=DRIFT)
    assert first == again
    assert len(Ledger(MLOpsHook().store(), "churn").history()) == 2


def test_a_lost_event_is_sent_again_until_a_training_claims(ask: Any) -> None:
    once = {"when": ["drift"], "cooldown": "7d"}
    lost, _ = ask(1, once, drift=DRIFT)
    again, result = ask(2, once, drift=DRIFT)
    assert (again["grant"], again["reasons"]) == (lost["grant"], ["drift"])
    assert again["window_end"] == "2013-06-03T00:00:00+00:00"
    assert result["sentence"] == (
        f"suppressed: {lost['grant']} of 2013-06-02 still waits for its training; "
        f"{lost['grant']} is not claimed yet: its event is sent again"
    )
    calm, _ = ask(3, once, drift=CALM)
    assert calm["grant"] == lost["grant"]
    assert ask(4, once, drift=CALM, promote=False)[0] is None
    assert claim("a", calm, once)["go"]
    with pytest.raises(AirflowSkipException, match="already claimed by run a"):
        claim("b", lost, once)
    assert ask(5, once, drift=CALM) == (None, "no alarm that this pipeline retrains on")


def test_a_budget_that_is_used_up_is_told_as_such_where_somebody_asked(ask: Any) -> None:
    limit = {"when": ["drift"], "max_per_month": 1}
    claim("a", ask(1, limit, drift=DRIFT)[0], limit)
    told.clear()
    ask(2, limit, ("suppressed", "budget"), drift=DRIFT)
    ask(3, limit, ("suppressed",), drift=DRIFT)
    ask(4, limit, ("retrain",), drift=DRIFT)
    why = "budget used up until 2013-07-01 (1 of 1 trainings by events in 2013-06)"
    assert told == [f"budget: churn: suppressed: {why}", f"suppressed: churn: suppressed: {why}"]


def test_a_claim_that_is_held_back_is_told_too(ask: Any) -> None:
    calm = {"when": ["drift"], "cooldown": "7d"}
    extra, _ = ask(5, calm, drift=DRIFT)
    # A schedule that trained for an earlier window does not close the grant, and starts a cool-down.
    Ledger(MLOpsHook().store(), "churn").claim(
        None, start="schedule", at=datetime(2013, 6, 2), run="s", config=Retrain.model_validate(calm), op_id="s"
    )
    told.clear()
    with pytest.raises(AirflowSkipException, match="cool-down until 2013-06-09"):
        claim("a", extra, calm, ("suppressed",))
    assert told == ["suppressed: churn: suppressed: cool-down until 2013-06-09 (last training 2013-06-02)"]
    with pytest.raises(AirflowSkipException, match="is closed"):
        claim("b", extra, calm, ("suppressed",))
    assert len(told) == 1  # nothing was held back: the event came twice


@pytest.mark.parametrize(
    ("trained_until", "asked"), [("2013-06-03", False), ("2013-06-09", False), ("2013-05-01", True)]
)
def test_the_age_of_a_champion_that_is_newer_than_the_window_is_no_alarm(
    monkeypatch: pytest.MonkeyPatch, trained_until: str, asked: bool
) -> None:
    snapshot = {"window": {"start": "2013-01-01T00:00:00+00:00", "end": f"{trained_until}T00:00:00+00:00"}}
    registry = SimpleNamespace(champion=lambda: SimpleNamespace(number=2, record={"snapshot": snapshot}))
    monkeypatch.setattr(MLOpsHook, "registry", lambda self, pipeline: registry)
    operator = RequestRetrainOperator(
        task_id="request", pipeline="churn", checks={}, retrain={"when": ["staleness"]}, monitor={"max_age": "20d"},
        outlets=[RETRAIN],
    )  # fmt: skip
    if asked:
        assert operator.execute(context("run 2", **window(2)))["reasons"] == ["staleness"]  # type: ignore[arg-type]
    else:
        with pytest.raises(AirflowSkipException, match="no alarm"):
            operator.execute(context("run 2", **window(2)))  # type: ignore[arg-type]


def wanted(day: int, run_id: str = "", after: int = 2, **checks: Any) -> tuple[dict[str, Any] | None, Any]:
    """One run of the request for an experiment; the event's extra, and the result or the skip's reason."""
    params = window(day) | {k: checks.pop(k) for k in ("promote",) if k in checks}
    operator = RequestExperimentOperator(
        task_id="experiment", pipeline="churn", checks=checks, retrain=TWICE, after=after, outlets=[RETRAIN],
        notify={"events": ["experiment"], "notifiers": [{"class": "any"}]},
    )  # fmt: skip
    found = context(run_id or f"run {day}", **params)
    try:
        result = operator.execute(found)  # type: ignore[arg-type]
    except AirflowSkipException as e:
        result = str(e)
    return found["outlet_events"][RETRAIN].extra, result


def test_an_experiment_is_asked_for_once_where_training_does_not_help() -> None:
    registry = MLOpsHook().registry("churn")
    for number in (1, 2, 3):
        registry.register({}, op_id=f"r{number}")
        note = {"verdict": "rejected", "sentence": f"v{number} is worse", "go": False}
        registry.annotate(number, "gates", note, op_id=f"g{number}")
    assert wanted(1, drift=CALM)[1] == "no alarm that this pipeline retrains on"
    assert wanted(1, drift=DRIFT, promote=False)[1] == "a replay that does not promote asks for no experiment"
    assert wanted(1, after=4, drift=DRIFT)[1].startswith("3 of 4 candidates in a row in vain")
    extra, result = wanted(2, drift=DRIFT)
    assert result["reasons"] == ["drift"]
    assert result["sentence"] == "3 candidates in a row did not become champion: v1, v2 and v3"
    assert extra is not None
    assert extra["request"] == result["request"]
    assert [v["sentence"] for v in extra["versions"]] == ["v1 is worse", "v2 is worse", "v3 is worse"]
    assert extra["details"] == {"drift": DRIFT["sentence"]}
    assert extra["window_end"].startswith("2013-06-03")
    assert told == [f"experiment: churn: an experiment is wanted: {result['sentence']}"]
    # A try that died after it was recorded tells it again; another window with the same candidates does not.
    assert wanted(2, drift=DRIFT) == (extra, result)
    assert wanted(3, drift=DRIFT)[1].startswith("0 of 2 candidates in a row in vain")
    assert len(Ledger(MLOpsHook().store(), "churn").experiments()) == 1
