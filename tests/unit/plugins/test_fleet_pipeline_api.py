"""The pages of a fleet: all keys told together, one key by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mlops.config.models import Retrain
from airflow_mlops.ml.fleet.alarms import put_alarms
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.ml.retrain_state import Checked
from airflow_mlops.ml.standing import standing
from airflow_mlops.registry import Registry
from airflow_mlops.registry.evidence import assess
from airflow_mlops.registry.records import Records
from tests.unit.plugins.fleets import night
from tests.unit.plugins.pages import NOW, Get, Site, as_role, check

SAID = "9 promoted, 1 rejected, 1 inconclusive, 1 failed"


@pytest.fixture
def routes(site: Site) -> Registry:
    """Two nights of twelve keys."""
    registry = site.pipeline("routes")
    for number in (1, 2):
        at = NOW - timedelta(days=2 - number)
        night(site.store, number, at=at)
        site.run("routes__train", f"night_{number}", at=at - timedelta(minutes=5))
    return registry


def test_the_row_of_a_fleet_tells_all_its_keys(routes: Registry, get: Get) -> None:
    (row,) = get("fleet")["rows"]
    assert (row["fleet"], row["models"], row["champions"], row["versions"]) == (True, 11, 9, 22)
    training = row["training"]
    assert (training["version"], training["verdict"], training["sentence"]) == (None, "9 promoted", SAID)
    assert (training["tone"], training["link"]) == ("warning", "dags/routes__train/runs/night_2")
    assert row["attention"]["code"] == "keys_failed"
    assert row["attention"]["reason"] == "1 of 12 keys failed in the last training"
    assert row["attention"]["link"].endswith("/plugin/mlops-pipeline?section=models&state=failed")
    assert row["owner"] == "ops"


def test_a_month_of_a_fleet_has_its_cost(site: Site, routes: Registry) -> None:
    found = standing(site.store, "routes", NOW)
    assert found.cost is not None
    assert (found.cost["month"], found.cost["cpu_seconds"]) == ("2026-11", 180.0)
    assert found.description == "A route, a model."


def test_the_level_of_a_fleet_counts_its_trainings(site: Site, routes: Registry) -> None:
    states = {s.capability.name: s for s in assess(site.store, "routes", None, NOW, 30).states}
    for name in ("training recorded with its data", "data validated before training", "gates judge a candidate",
                 "promotion by gates alone", "gates refuse a candidate"):  # fmt: skip
        assert states[name].recent, name
    assert not states["promotion by gates and a person"].used
    assert not states["a person approves"].used
    assert not states["pipeline delivery (CI/CD)"].used
    much_later = assess(site.store, "routes", None, NOW + timedelta(days=60), 30)
    assert not any(s.recent for s in much_later.states)


def test_who_was_asked_counts_as_approval(site: Site) -> None:
    site.pipeline("routes")
    night(site.store, 1, approval={"by": "anna", "answer": ["Approve"]}, delivered=True)
    states = {s.capability.name: s for s in assess(site.store, "routes", None, NOW, 30).states}
    assert states["a person approves"].recent
    assert states["promotion by gates and a person"].recent
    assert states["pipeline delivery (CI/CD)"].recent
    assert not states["promotion by gates alone"].used


def test_a_handover_counts_and_is_told(site: Site, get: Get) -> None:
    site.pipeline("routes", level=0)
    night(site.store, 1, approval={"by": "anna", "answer": ["Approve"]}, bundle="b" * 64)
    states = {s.capability.name: s for s in assess(site.store, "routes", None, NOW, 30).states}
    assert states["handover bundle made"].recent
    assert not states["promotion by gates and a person"].used
    assert get("pipelines/routes/timeline")["events"][0]["what"] == "handover"


def test_a_rollback_of_one_key_counts(site: Site, routes: Registry) -> None:
    routes.rollback(expected=2, key="r00005", op_id="back", reason="worse", by="anna")
    states = {s.capability.name: s for s in assess(site.store, "routes", None, datetime.now(UTC), 30).states}
    assert states["rollback to an earlier champion"].used


def test_a_rehearsal_is_no_training(site: Site, routes: Registry, get: Get) -> None:
    night(site.store, 3, keys=2, rehearsal=True, sentence="a rehearsal")
    assert get("fleet")["rows"][0]["training"]["sentence"] == SAID
    assert all("rehearsal" not in e["sentence"] for e in get("pipelines/routes/timeline")["events"])
    assert get("pipelines/routes/keys")["training"]["run_id"] == "night_2"
    assert get("pipelines/routes/keys", run_id="night_3")["training"]["sentence"] == "a rehearsal"


def test_the_timeline_tells_a_night_in_two_lines(routes: Registry, get: Get) -> None:
    events = get("pipelines/routes/timeline")["events"]
    assert [(e["what"], e["title"]) for e in events] == [
        ("promoted", "9 keys have a new champion"),
        ("fleet", "12 keys were trained and judged"),
    ] * 2
    assert events[1]["sentence"] == f"{SAID}, 9 compared with their champion (p had to be at most 0.04)"
    assert events[1]["link"] == "dags/routes__train/runs/night_2"
    assert events[1]["report"] == f"mlops/reports/routes__train/{'e' * 64}"
    assert [e["what"] for e in get("pipelines/routes/timeline", kind="delivery")["events"]] == ["promoted"] * 2


def test_the_timeline_of_one_key(routes: Registry, get: Get) -> None:
    routes.rollback(expected=2, key="r00005", op_id="back", reason="worse", by="anna")
    events = get("pipelines/routes/timeline", key="r00005")["events"]
    assert [e["what"] for e in reversed(events)] == [
        "registered",
        "gates",
        "registered",
        "gates",
        "promoted",
        "rolled back",
    ]
    assert events[0]["title"] == "routes[r00005] v1 became champion again: v2 was rolled back"
    # It is told on the page of all keys, too: somebody did it by hand.
    assert get("pipelines/routes/timeline")["events"][0]["key"] == "r00005"


def test_the_timeline_of_one_key_has_its_alarms_and_what_they_asked_for(site: Site, routes: Registry, get: Get) -> None:
    drifted = put_alarms(site.store, {"r00004": (2, ["hour", "rain"]), "r00005": (2, ["rain"])})
    check(site.store, "routes", "drift", 5, "drift", "m1", alarms=drifted, sentence="drift in 2 of 12 keys")
    check(site.store, "routes", "drift", 6, "drift", alarms=put_alarms(site.store, {"r00005": (2, ["rain"])}))
    check(site.store, "routes", "drift", 7, "no_drift", alarms=None)
    worse = put_alarms(site.store, {"r00004": (2, [])})
    check(site.store, "routes", "performance", 5, "drop", alarms=worse)
    ledger, config = Ledger(site.store, "routes"), Retrain()
    asked = {"drift": Checked(drifted, NOW, (drifted,)), "performance": Checked(worse, NOW, (worse,))}
    ledger.request([*asked], evidence="e", at=NOW, config=config, op_id="q", checks=asked,
                   keys={"drift": drifted, "performance": worse})  # fmt: skip
    events = {e["what"]: e for e in get("pipelines/routes/timeline", key="r00004", kind="check,retrain")["events"]}
    assert {what: e["title"] for what, e in events.items()} == {
        "drift": "drift: hour, rain",
        "performance": "performance drop",
        "request": "a training because of drift and performance was granted",
    }
    assert (events["drift"]["version"], events["drift"]["tone"]) == (2, "warning")
    assert events["drift"]["sentence"] == "of all keys: drift in 2 of 12 keys"
    other = get("pipelines/routes/timeline", key="r00005", kind="check,retrain")["events"]
    assert [e["title"] for e in other if e["what"] == "drift"] == ["drift: rain"] * 2
    assert [e["title"] for e in other if e["what"] == "request"] == ["a training because of drift was granted"]
    assert get("pipelines/routes/timeline", key="r00007", kind="check,retrain")["events"] == []
    # The page of all keys tells them as before.
    assert len(get("pipelines/routes/timeline", kind="check,retrain")["events"]) == 5


@pytest.mark.parametrize("path", ["timeline", "versions", "compare", "lineage", "reports"])
def test_a_key_that_is_not_there_is_not_found(routes: Registry, client: Any, path: str) -> None:
    answer = client.get(f"/mlops/api/pipelines/routes/{path}", params={"key": "nobody"}, headers=as_role("viewer"))
    assert answer.status_code == 404
    assert "nobody" in answer.json()["detail"]


def test_versions_and_comparison_of_one_key(routes: Registry, get: Get) -> None:
    found = get("pipelines/routes/versions", key="r00007")["versions"]
    assert [(v["version"], v["status"], v["verdict"]) for v in found] == [
        (2, "champion", "passed"), (1, "candidate", "no_baseline")]  # fmt: skip
    assert found[0]["link"] == "dags/routes__train/runs/night_2"
    both = get("pipelines/routes/compare", key="r00007", a="1", b="champion")
    assert (both["a"]["version"], both["b"]["version"]) == (1, 2)
    # v2 was compared with v1 by its gates: both scores are of the same rows.
    assert both["note"] == "both were measured on the same 40 holdout rows, when v2 was judged"
    (metric,) = both["metrics"]
    r2 = 0.5 + 0.4 * 7 / 97
    assert (metric["name"], metric["a"]["value"], metric["b"]["value"], metric["same_rows"]) == (
        "r2", pytest.approx(r2 - 0.01), pytest.approx(r2), True)  # fmt: skip
    assert (both["a"]["against"], both["b"]["against"]) == (None, 1)
    assert (both["b"]["verdict"], both["b"]["sentence"]) == ("passed", f"passed: r2 {r2:.3f}")
    assert "metrics" not in {f["group"] for f in both["facts"]}
    graph = get("pipelines/routes/lineage", key="r00007", version="champion")
    assert graph["version"] == 2
    titles = {n["title"] for n in graph["nodes"]}
    assert {"routes[r00007] v2", "night_2", "Gates: passed", "Promoted"} <= titles
    assert [r["name"] for r in get("pipelines/routes/reports", key="r00007")["reports"]] == ["Gate report"] * 2


def test_versions_of_a_key_that_were_not_compared_have_their_own_scores(site: Site, routes: Registry, get: Get) -> None:
    night(site.store, 3, at=NOW + timedelta(days=1))
    both = get("pipelines/routes/compare", key="r00007", a="1", b="3")
    assert both["note"].startswith("each was measured on the holdout of its own training")
    assert (both["metrics"][0]["a"]["value"], both["metrics"][0]["same_rows"]) == (
        pytest.approx(0.5 + 0.4 * 7 / 97), False)  # fmt: skip


def test_keys_are_searched_filtered_sorted_and_paged(routes: Registry, get: Get) -> None:
    page = get("pipelines/routes/keys", limit=5)
    assert (page["total"], [r["key"] for r in page["rows"]]) == (12, [f"r{n:05d}" for n in range(5)])
    assert [(s["state"], s["keys"]) for s in page["states"]] == [
        ("promoted", 9), ("rejected", 1), ("inconclusive", 1), ("failed", 1)]  # fmt: skip
    assert page["metrics"] == ["r2"]
    row = get("pipelines/routes/keys", search="R00007")["rows"][0]
    assert (row["state"], row["version"], row["champion"], row["serving"], row["versions"]) == ("promoted", 2, 1, 2, 2)
    assert row["metrics"] == {"r2": pytest.approx(0.5 + 0.4 * 7 / 97)}
    assert row["champion_metrics"] == {"r2": pytest.approx(0.49 + 0.4 * 7 / 97)}
    failed = get("pipelines/routes/keys", state="failed,rejected")["rows"]
    assert [(r["key"], r["state"], r["tone"], r["serving"]) for r in failed] == [
        ("r00000", "failed", "bad", None), ("r00001", "rejected", "bad", None)]  # fmt: skip
    best = get("pipelines/routes/keys", sort="metric:r2", order="desc", limit=3)["rows"]
    assert [r["key"] for r in best] == ["r00011", "r00010", "r00009"]
    # Keys without the metric stand last, whichever way.
    for order in ("asc", "desc"):
        assert get("pipelines/routes/keys", sort="metric:r2", order=order)["rows"][-1]["key"] == "r00000"
    last = get("pipelines/routes/keys", limit=5, offset=999)
    assert (last["offset"], [r["key"] for r in last["rows"]]) == (10, ["r00010", "r00011"])
    assert get("pipelines/routes/keys", sort="no such column", limit=1)["rows"][0]["key"] == "r00000"
    assert get("pipelines/routes/keys", search="nothing like it")["rows"] == []


def test_how_a_metric_is_spread(routes: Registry, get: Get) -> None:
    (spread,) = get("pipelines/routes/keys")["spreads"]
    assert (spread["metric"], spread["keys"], sum(spread["tally"]), len(spread["edges"])) == ("r2", 11, 11, 31)
    assert spread["low"] < spread["middle"] < spread["high"]


def test_keys_that_were_not_due_are_there_as_they_were_left(
    site: Site, routes: Registry, get: Get, client: Any
) -> None:
    night(site.store, 3, due=["r00004", "r00005"], at=NOW + timedelta(days=1))
    page = get("pipelines/routes/keys")
    states = {"promoted": 9, "failed": 1, "rejected": 1, "inconclusive": 1}
    assert {s["state"]: s["keys"] for s in page["states"]} == states
    rows = {row["key"]: row for row in page["rows"]}
    row = rows["r00007"]
    assert (row["state"], row["version"], row["serving"], row["decided_in"]) == ("promoted", 2, 2, "night_2")
    assert row["metrics"] == {"r2": pytest.approx(0.5 + 0.4 * 7 / 97)}
    assert (rows["r00005"]["version"], rows["r00005"]["decided_in"]) == (3, None)
    assert (rows["r00000"]["state"], rows["r00000"]["decided_in"]) == ("failed", "night_2")
    assert page["spreads"][0]["keys"] == 11
    (line,) = get("fleet")["rows"]
    assert (line["attention"]["code"], line["attention"]["reason"]) == (
        "keys_failed", "1 of 12 keys failed in their last training")  # fmt: skip
    answer = client.get("/mlops/api/pipelines/routes/timeline", params={"key": "r00000"}, headers=as_role("viewer"))
    assert answer.json()["detail"].endswith("no model of the key 'r00000'; failed in night_2: failed: r2 0.500")
    # Of one run, what it came to.
    assert get("pipelines/routes/keys", run_id="night_3")["total"] == 2


def test_a_store_from_before_has_its_keys_too(site: Site, routes: Registry, get: Get) -> None:
    at = NOW + timedelta(days=1)
    night(site.store, 3, due=["r00004", "r00005"], at=at, all_keys=None, states=None)
    page = get("pipelines/routes/keys")
    assert {s["state"]: s["keys"] for s in page["states"]} == {"promoted": 2, "not_due": 9}
    row = get("pipelines/routes/keys", search="r00007")["rows"][0]
    assert (row["state"], row["serving"], row["decided_in"]) == ("not_due", 2, None)


def test_a_run_of_a_fleet_tells_what_it_decided(routes: Registry, get: Get) -> None:
    run = get("runs/routes__train", run_id="night_1")
    assert (run["fleet"], run["version"], run["title"], run["tone"]) == (True, None, SAID, "warning")
    assert run["window"]["end"] == "2026-11-01T00:00:00+00:00"
    assert any("missed a gate" in text for text in run["changes"])
    assert [e["what"] for e in run["events"]] == ["fleet", "promoted"]
    facts = {s["title"]: {f["name"]: f["value"] for f in s["facts"]} for s in run["sections"]}
    assert facts["Fleet"] == {"keys": "12", "new models": "11", "new champions": "9"}
    assert facts["Data"]["rows"] == "2,400"
    assert facts["Code"]["commit"] == "c0ffee" * 6
    assert "90.0 s of processor time" in facts["Cost"]["all tasks"]
    assert [r["about"] for r in run["reports"]] == ["all keys"]
    later = get("runs/routes__train", run_id="night_2")
    assert later["sentence"] == "9 compared with their champion (p had to be at most 0.04)"
    keys = get("pipelines/routes/keys", run_id="night_1")
    assert {r["serving"] for r in keys["rows"]} == {None}
    assert keys["training"]["run_id"] == "night_1"


def test_a_no_to_a_fleet_is_told(site: Site, get: Get) -> None:
    site.pipeline("routes")
    site.run("routes__train", "night_1")
    night(site.store, 1, approval={"by": "anna", "answer": ["Reject"]}, counts={"passed": 12}, sentence="12 passed")
    run = get("runs/routes__train", run_id="night_1")
    assert (run["title"], run["tone"]) == ("Nothing was promoted: anna said no", "bad")
    assert [e["title"] for e in get("pipelines/routes/timeline")["events"] if e["what"] == "approval"] == [
        "the new models were answered Reject by anna"
    ]


def test_a_run_that_is_not_known_has_no_keys(routes: Registry, client: Any) -> None:
    answer = client.get("/mlops/api/pipelines/routes/keys", params={"run_id": "x"}, headers=as_role("viewer"))
    assert answer.status_code == 404


def test_before_the_first_result_there_is_a_fleet(site: Site, get: Get) -> None:
    registry = site.pipeline("routes")
    registry.register_many({"a": {"model": {"digest": "d" * 64}}}, op_id="r")
    row = get("fleet")["rows"][0]
    assert (row["fleet"], row["training"], row["models"]) == (True, None, 1)
    page = get("pipelines/routes/keys")
    assert (page["training"], [(r["key"], r["state"]) for r in page["rows"]]) == (None, [("a", "not_due")])
    head = get("pipelines/routes")
    assert [a["name"] for a in head["actions"]] == ["retrain"]
    assert get("pipelines/routes/performance")["points"] == []
    assert get("pipelines/routes/drift")["windows"] == []


def test_alarms_about_what_serves_stand_beside_their_keys(site: Site, routes: Registry, get: Get) -> None:
    found = {"r00004": (2, ["hour", "rain"]), "r00005": (1, ["hour"]), "r00006": (2, [])}
    columns = [{"name": "hour", "kind": "fleet", "statistic": "share of keys", "effect": 0.2, "p_value": 0.001,
                "drifted": True, "sentence": "hour: drift in 2 of 12 keys", "threshold": None}]  # fmt: skip
    check(site.store, "routes", "drift", 5, "drift", alarms=put_alarms(site.store, found), columns=columns)
    check(site.store, "routes", "staleness", 5, "stale", alarms=put_alarms(site.store, {"r00004": (2, ())}))
    page = get("pipelines/routes/keys", alarmed=True)
    # That of r00005 is about a version that serves no more.
    assert [(r["key"], r["alarms"]) for r in page["rows"]] == [
        ("r00004", "drift: hour, rain; staleness"),
        ("r00006", "drift"),
    ]
    assert (page["alarmed"], page["total"]) == (2, 2)
    assert get("pipelines/routes/keys", run_id="night_2")["alarmed"] == 0
    said = "drift is drift; 1 of its 3 keys has a new champion since"
    assert get("fleet")["rows"][0]["attention"]["reason"] == said
    drift = get("pipelines/routes/drift")
    assert (drift["fleet"], drift["columns"][0]["cells"][0]["drifted"]) == (True, True)
    # The next check is calm.
    check(site.store, "routes", "drift", 6, "no_drift", alarms=None, columns=[])
    site.run("routes__monitor", "m")
    assert [r["alarms"] for r in get("pipelines/routes/keys", alarmed=True)["rows"]] == ["staleness"]


def test_an_alarm_that_a_training_has_answered_is_none(site: Site, routes: Registry, get: Get) -> None:
    """Two keys drift; then one of them is trained again, then the other."""
    keys = ["r00004", "r00005"]
    alarms = put_alarms(site.store, {key: (2, ["hour"]) for key in keys})
    named = "drift in 2 of 12 keys: r00004 (hour, W1 2)"
    check(site.store, "routes", "drift", 5, "drift", alarms=alarms, sentence=named)
    check(site.store, "routes", "staleness", 5, "stale", alarms=alarms, stale=["model"])
    fell = {"metric": "r2", "value": 0.1, "baseline": 0.5, "sentence": "r2 has fallen"}
    check(site.store, "routes", "performance", 5, "drop", alarms=put_alarms(site.store, {keys[1]: (2, ())}), **fell)

    def told() -> tuple[str, str, str, str]:
        (row,) = get("fleet")["rows"]
        return row["attention"]["reason"], row["drift"]["sentence"], row["drift"]["tone"], row["performance"]["tone"]

    assert told() == ("r2 has fallen", named, "warning", "warning")
    for number, key in enumerate(reversed(keys), 3):
        night(site.store, number, due=[key], at=NOW, states={"promoted": 12})  # no key is broken
        site.run("routes__train", f"night_{number}", at=NOW)
        if number == 3:
            said = "1 of its 2 keys has a new champion since"
            link = get("fleet")["rows"][0]["attention"]["link"]
            assert link.endswith("/plugin/mlops-pipeline?section=models&alarmed=true")
            # Of those that are named some may be answered.
            assert told() == (f"drift in 2 of 12 keys; {said}", f"{named}; {said}", "warning", "ok")
    assert told()[1:] == (f"{named}; all of its keys have a new champion since", "ok", "ok")
    assert get("fleet")["rows"][0]["attention"]["code"] == "ok"
    # No training answers rows that come too late.
    check(site.store, "routes", "staleness", 5, "stale", alarms=alarms, stale=["model", "data"])
    site.run("routes__monitor", "m")
    (row,) = get("fleet")["rows"]
    assert row["attention"]["code"] == "stale"
    assert row["attention"]["reason"] == "staleness is stale; all of its keys have a new champion since"


def test_a_fleet_has_no_distribution_and_says_why(routes: Registry, client: Any) -> None:
    asked = {"window": "20260501T000000Z-20260601T000000Z", "column": "hour"}
    answer = client.get("/mlops/api/pipelines/routes/distribution", params=asked, headers=as_role("viewer"))
    assert (answer.status_code, "reference of its own" in answer.json()["detail"]) == (404, True)


def test_markup_in_a_key_is_data(site: Site, get: Get) -> None:
    registry = site.pipeline("routes")
    name = '<img src=x onerror="alert(1)">'
    registry.register_many({name: {"model": {"digest": "d" * 64}}}, op_id="r")
    assert get("pipelines/routes/keys", search="<img")["rows"][0]["key"] == name
    assert get("pipelines/routes/timeline", key=name)["events"][0]["key"] == name


def test_a_year_of_nights_is_read_by_run_not_by_key(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pipeline("routes")
    for number in (1, 2):
        night(site.store, number, keys=24)
    read: list[str] = []
    get = site.store.get
    monkeypatch.setattr(site.store, "get", lambda key: (read.append(key), get(key))[1])
    records = Records.read(site.store, "routes")
    assert (len(records.runs), records.log) == (2, ())
    # No batch of models: what the log's entries name is left alone.
    assert not [key for key in read if key.startswith("blobs/")]
