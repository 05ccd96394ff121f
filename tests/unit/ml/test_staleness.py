from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from airflow_mlops.ml.staleness import check_staleness, model_age, staleness
from airflow_mlops.registry.checks import write_check
from airflow_mlops.registry.registry import Version
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window

FEB = Window.of("2013-02-01", "2013-03-01")
DAY = timedelta(days=1)
RECORD = {"snapshot": {"window": Window.of("2012-11-01", "2013-02-01").to_dict()}}


def test_ages_are_judged_by_their_own_limits() -> None:
    ages = {"model": 40 * DAY, "data": timedelta(hours=5), "outcomes": 33 * DAY}
    report = check_staleness(3, ages, {"model": 30 * DAY, "data": timedelta(hours=6)})
    assert (report.verdict, report.stale) == ("stale", ("model",))
    assert "v3 learned from, the reference of drift, end 40 days before" in report.sentence
    assert "longer than 30 days: stale" in report.sentence
    assert "5 hours older than the window's end, limit 6 hours" in report.sentence
    assert report.ages == {"model": 40.0, "data": 0.208, "outcomes": 33.0}
    assert check_staleness(3, ages, {"model": 40 * DAY}).verdict == "fresh"
    assert check_staleness(3, ages, {"model": 90 * DAY, "data": timedelta(hours=4)}).stale == ("data",)
    assert "row is less than a minute older" in check_staleness(3, {"data": timedelta(0)}, {}).sentence
    assert "row is 1 minute older" in check_staleness(3, {"data": timedelta(seconds=70)}, {}).sentence
    assert check_staleness(3, ages | {"outcomes": 900 * DAY}, {"model": 90 * DAY}).verdict == "fresh"


def test_an_age_that_is_not_known_is_no_freshness() -> None:
    report = check_staleness(1, {"model": None, "data": None, "outcomes": None}, {"model": 30 * DAY, "data": None})
    assert report.verdict == "not_enough_data"
    assert "how old the model is, is not known" in report.sentence
    assert check_staleness(1, {"model": None, "data": 9 * DAY}, {"model": DAY, "data": DAY}).verdict == "stale"
    assert model_age(Version("p", 1, None, {"snapshot": None}), FEB.end) is None
    assert model_age(Version("p", 1, None, RECORD), FEB.end) == 28 * DAY


def test_ages_are_counted_from_the_windows_end_and_see_no_later_window(tmp_path: Path) -> None:
    store, version = LocalStore(tmp_path), Version("p", 2, None, RECORD)
    limits = {"max_age": 30 * DAY, "fresh_within": 2 * DAY}
    nothing = staleness(store, version, FEB, **limits)
    assert (nothing["verdict"], nothing["ages"]["outcomes"]) == ("not_enough_data", None)
    write_check(store, "p", FEB, "prediction", {"newest": "2013-02-28T18:00:00+00:00"})
    jan, march = Window.of("2013-01-01", "2013-02-01"), Window.of("2013-03-01", "2013-04-01")
    write_check(store, "p", FEB, "performance", {"value": 0.7, "window": jan.to_dict()})
    write_check(store, "p", march, "performance", {"value": 0.7, "window": FEB.to_dict()})
    result = staleness(store, version, FEB, **limits)
    assert (result["verdict"], result["version"]) == ("fresh", 2)
    assert result["ages"] == {"model": 28.0, "data": 0.25, "outcomes": 28.0}
    later = staleness(store, version, march, **limits)
    assert later["stale"] == ["model"]
    assert later["ages"]["outcomes"] == 31.0
    json.dumps([nothing, result, later], allow_nan=False)
    assert staleness(store, version, FEB, **limits, rehearsal=True)["ages"]["data"] is None
