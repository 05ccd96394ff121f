from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops.cli import tables
from airflow_mlops.window import Window

FEB = Window.of("2013-02-01", "2013-03-01").to_dict()


def checks(**more: Any) -> dict[str, Any]:
    return {
        "window": FEB,
        "prediction": {"rows": 24951, "version": 1},
        "drift": {
            "verdict": "drift",
            "columns": [{"name": "wind_speed", "drifted": True}, {"name": "dest", "drifted": False}],
        },
        "performance": {"verdict": "ok", "metric": "roc_auc", "value": 0.6412},
        **more,
    }


def test_a_window_that_retrained_and_promoted() -> None:
    row = tables.row(
        checks(
            training={"go": True, "start": "retrain", "reasons": ["drift", "performance"], "sentence": "claimed"},
            gates={"verdict": "passed", "version": 2, "sentence": "passed: all gates"},
            promotion={"version": 2, "previous": 1},
        )
    )
    assert row == tables.Row(
        window="2013-02", rows="24,951", drift="drift: wind_speed", champion="v1", metric="roc_auc 0.641",
        retrain="drift, performance", verdict="passed", reason="v2: all gates. v2 is champion.",
    )  # fmt: skip


def test_a_rollout_is_told_where_it_begins_and_where_it_goes_on() -> None:
    gates = {"verdict": "passed", "version": 2, "sentence": "passed: all gates"}
    row = tables.row(checks(gates=gates, promotion={"version": 2, "previous": 1, "step": "shadow"}))
    assert row.reason == "v2: all gates. v2 begins its rollout."
    look = {"version": 2, "verdict": "passed", "sentence": "shadow, 1 window → canary 10 %"}
    assert tables.row(checks(rollout=look)).reason == "v2, shadow, 1 window → canary 10 %"
    held = {"go": False, "start": "new_data", "reasons": [], "sentence": "cool-down until March 18"}
    row = tables.row(checks(suppressed=held, rollout=look))
    assert row.reason == "cool-down until March 18. v2, shadow, 1 window → canary 10 %"


def test_a_wish_that_was_not_granted_stands_in_brackets_with_its_reason() -> None:
    row = tables.row(
        checks(suppressed={"go": False, "start": "new_data", "reasons": [], "sentence": "cool-down until March 18"})
    )
    assert (row.retrain, row.verdict, row.reason) == ("(new data)", tables.NONE, "cool-down until March 18")
    row = tables.row(checks(request={"granted": False, "reasons": ["drift"], "sentence": "cool-down"}))
    assert (row.retrain, row.reason) == ("(drift)", "cool-down")


def test_the_first_window_has_no_champion_yet() -> None:
    row = tables.row(
        {
            "window": FEB,
            "training": {"go": True, "start": "initial", "reasons": ["initial"], "sentence": ""},
            "gates": {"verdict": "no_baseline", "version": 1, "sentence": "nothing to compare with"},
        }
    )
    assert (row.rows, row.champion, row.metric, row.retrain, row.verdict) == ("–", "–", "–", "initial", "no baseline")


def test_labels_that_are_not_there_yet() -> None:
    assert tables.row(checks(performance={"verdict": "pending_labels", "value": None})).metric == "pending labels"


def test_windows_are_named_shortly() -> None:
    assert tables.short(Window.of("2013-12-01", "2014-01-01")) == "2013-12"
    assert tables.short(Window.of("2013-12-31", "2014-01-01")) == "2013-12-31"
    assert tables.short(Window.of("2013-12-02", "2013-12-09")) == "2013-12-02 … 2013-12-09"


@pytest.mark.parametrize("width", [80, 110, 130, 150, 200])
def test_the_table_fits_its_width_and_loses_no_words(width: int) -> None:
    long = "roc_auc 0.628 is 0.016 below the champion's, between 0.024 and 0.007 with 95 % confidence; " * 4
    names = ["humidity", "wind_speed", "precipitation", "visibility", "scheduled_departure_hour"]
    row = tables.row(
        checks(
            gates={"verdict": "inconclusive", "version": 3, "sentence": long},
            drift={"verdict": "drift", "columns": [{"name": name, "drifted": True} for name in names]},
            training={"go": True, "start": "retrain", "reasons": ["drift", "performance"], "sentence": ""},
        )
    )
    text = tables.render([row, row], width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    words = [word.strip(".;,") for word in text.split()]
    for word in {word.strip(".;,") for word in (*long.split(), *names)}:
        assert words.count(word) % 2 == 0, word
        assert word in words


def test_feature_skew_stands_beside_drift_where_it_was_found() -> None:
    columns = [{"name": "distance", "skewed": True}, {"name": "dest", "skewed": False}]
    row = tables.row(checks(skew={"verdict": "skew", "columns": columns}))
    assert row.drift == "drift: wind_speed; feature skew: distance"
    assert tables.row(checks(skew={"verdict": "no_skew", "columns": columns[1:]})).drift == "drift: wind_speed"


def test_a_line_of_progress() -> None:
    assert "24,951 rows" in tables.line(tables.row(checks()))


def test_a_fleet_is_told_as_a_whole() -> None:
    fleet = {"verdict": "passed", "sentence": "72 without a champion to compare with, 4 rejected", "go": True}
    scored = {"rows": 28834, "version": None, "counts": {"rows": 28834, "models": 1214}}
    row = tables.row({"window": FEB, "prediction": scored, "fleet": fleet})
    assert (row.champion, row.verdict) == ("1,214 models", "passed")
    assert row.reason == "72 without a champion to compare with, 4 rejected"
    promotion = {"sentence": "72 promoted, 4 rejected", "version": None}
    assert tables.row({"window": FEB, "fleet": fleet, "promotion": promotion}).reason == "72 promoted, 4 rejected"
    assert "champion 1,214 models" in tables.line(row)
