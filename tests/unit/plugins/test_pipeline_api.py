"""The pages about one pipeline and one run, against Airflow's own tables and a store on disk."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from airflow_mlops.config.models import Retrain
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.plugins.api.reader import AT_WORK, OLD, RUNNING, StoreReader
from airflow_mlops.plugins.api.rows import days
from airflow_mlops.registry import Registry
from airflow_mlops.registry.records import Records
from airflow_mlops.store import LocalStore, layout
from tests.unit.plugins.pages import NOW, Get, Site, as_role, champion, check, gates, record

MARKUP = "<img src=x onerror=alert(1)>"
P = "pipelines/churn"
CARD = "9" * 64
SLICE = {"column": "town", "value_of": MARKUP, "rows": 50, "value": 0.6, "low": 0.5, "high": 0.7, "verdict": "passed"}


def evaluation(champion_number: int | None, holdout: str, value: float = 0.7) -> dict[str, Any]:
    metric = {
        "name": "roc_auc", "candidate": value, "candidate_low": value - 0.1, "candidate_high": value + 0.1,
        "lower_is_better": False,
    }  # fmt: skip
    if champion_number:
        metric |= {"champion": 0.65, "champion_low": 0.6, "champion_high": 0.7}
    return {
        "champion": champion_number,
        "holdout": holdout,
        "rows": 200,
        "blocks": None,
        "metrics": {"roc_auc": metric},
    }


@pytest.fixture
def churn(site: Site) -> Registry:
    """v1 champion, v2 inconclusive against it, v3 rejected by a person, v4 champion and then rolled back to v1."""
    registry = site.pipeline("churn", level=1)
    registry.register(record("r1"), op_id="r1")
    registry.annotate(1, "evaluation", evaluation(None, "h1"), op_id="e1")
    registry.annotate(1, "gates", gates("no_baseline", "nothing to compare with"), op_id="g1")
    registry.annotate(1, "card", {"html": CARD, "markdown": "8" * 64}, op_id="k1")
    window = {"start": "2026-03-01T00:00:00+00:00", "end": "2026-04-01T00:00:00+00:00"}
    registry.promote(1, expected=None, op_id="p1", reason=MARKUP, window=window)
    registry.register(record("r2", params={"C": 2.0}), op_id="r2")
    registry.annotate(2, "evaluation", evaluation(1, "h2"), op_id="e2")
    note = gates("inconclusive", "cannot show it", needed_rows=41234, slices=[SLICE])
    registry.annotate(2, "gates", note | {"version": 2}, op_id="g2")
    registry.register(record("r3"), op_id="r3")
    registry.annotate(3, "gates", gates("passed", "good"), op_id="g3")
    registry.annotate(3, "approval", {"by": "anna", "answer": ["Reject"]}, op_id="a3")
    champion(registry, 4, expected=1)
    registry.rollback(expected=4, op_id="b4", reason="too slow", by="bob")
    registry.register(record("rehearsed") | {"run": {"rehearsal": True}}, op_id="r5")
    for month, (value, low) in {5: (0.7, 0.6), 6: (0.66, 0.6)}.items():
        check(site.store, "churn", "performance", month, "ok", version=1, metric="roc_auc", value=value, low=low,
              high=0.8, baseline=0.7, rows=99)  # fmt: skip
    check(site.store, "churn", "performance", 7, "pending_labels")
    for month, drifted in {5: [False, True], 6: [True, True]}.items():
        columns = [
            {
                "name": n,
                "kind": "number",
                "effect": 0.2,
                "p_value": 0.01,
                "drifted": d,
                "statistic": "W1",
                "sentence": n,
            }
            for n, d in zip(("age", MARKUP), drifted, strict=True)
        ]
        columns += [columns[0] | {"name": "probability", "drifted": False}] if month == 6 else []
        check(site.store, "churn", "drift", month, "drift", version=1, rows=500, report="7" * 64, columns=columns)
    ledger, config = Ledger(site.store, "churn"), Retrain.model_validate({"cooldown": "7d"})
    ledger.claim(None, start="schedule", at=NOW, run="r1", config=config, op_id="c")
    ledger.request(["drift"], evidence="e", at=NOW, config=config, op_id="q")
    ledger.request(["drift"], evidence="e2", at=NOW, config=config, op_id="q2", dry=True)
    return registry


def test_the_head_tells_what_can_be_done(site: Site, get: Get, churn: Registry) -> None:
    found = get(P, role="admin")
    assert found["row"]["pipeline"] == "churn"
    assert (found["description"], found["keys"], found["returns_to"]) == ("Who leaves.", [], None)
    assert found["advice"]
    actions = {a["name"]: a for a in found["actions"]}
    assert actions["retrain"] == {
        "name": "retrain", "dag_id": "churn__train", "allowed": True, "why_not": None, "conf": {},
        "asks": ["window_start", "window_end", "reason"],
    }  # fmt: skip
    assert actions["rollback"]["conf"] == {"action": "rollback", "expected": 1}
    assert actions["rollback"]["why_not"] == "there is no champion before this one"
    assert actions["promote"]["conf"] == {"action": "promote", "version": 4, "expected": 1}
    churn.promote(4, expected=1, op_id="p5", reason="x")
    site.run("churn__registry", "g1")
    actions = {a["name"]: a for a in get(P, role="admin")["actions"]}
    assert actions["rollback"]["allowed"]
    # A viewer sees the buttons, and why they are of no use to them.
    assert [a["allowed"] for a in get(P)["actions"]] == [False, False]
    assert "may not start runs of churn__train" in get(P)["actions"][0]["why_not"]


def test_conf_of_the_buttons_fits_the_forms() -> None:
    from airflow_mlops.factory.builder import _FORM
    from airflow_mlops.factory.levels import continuous_training, manual

    for level, asks in ((manual.LEVEL, {"window_start", "window_end"}), (continuous_training.LEVEL, {"reason"})):
        forms = {spec.suffix: set(spec.form) for spec in level}
        assert asks <= forms["train"]
        assert {"action", "version", "expected", "reason"} <= forms["registry"]
    assert {"rollback", "promote", "abort"} <= {*_FORM["action"]["enum"]}


def test_the_timeline_is_the_whole_story(get: Get, churn: Registry) -> None:
    found = get(f"{P}/timeline", limit=200)
    said = [(e["kind"], e["title"], e["tone"]) for e in reversed(found["events"])]
    assert found["total"] == len(said)
    assert [s for s in said if s[0] in ("version", "decision", "delivery")] == [
        ("version", "v1 was trained", "info"),
        ("decision", "v1 had no champion to be compared with", "ok"),
        ("delivery", "v1 became champion", "ok"),
        ("version", "v2 was trained", "info"),
        ("decision", "v2 could not be decided by its gates", "warning"),
        ("version", "v3 was trained", "info"),
        ("decision", "v3 passed its gates", "ok"),
        ("decision", "v3 was answered Reject by anna", "bad"),
        ("version", "v4 was trained", "info"),
        ("decision", "v4 passed its gates", "ok"),
        ("delivery", "v4 became champion in place of v1", "ok"),
        ("delivery", "v1 became champion again: v4 was rolled back", "warning"),
    ]
    assert [s[1:] for s in said if s[0] == "retrain"] == [
        ("a training began", "info"), ("a training because of drift was held back", "warning"),
    ]  # fmt: skip
    assert ("check", f"drift: age, {MARKUP}", "warning") in said
    assert len({e["id"] for e in found["events"]}) == found["total"]
    promoted = next(e for e in found["events"] if e["title"] == "v1 became champion")
    assert promoted["sentence"] == MARKUP
    decided = next(e for e in found["events"] if e["what"] == "gates" and e["version"] == 2)
    assert decided["gates"][0]["needed_rows"] == 41234
    assert decided["link"] == "dags/churn__train/runs/r2"
    assert decided["report"] == f"mlops/reports/churn__train/{'e' * 64}"
    page = get(f"{P}/timeline", kind="delivery,retrain", limit=2, offset=1)
    assert (page["total"], len(page["events"])) == (5, 2)


def test_versions_newest_first(get: Get, churn: Registry) -> None:
    found = get(f"{P}/versions")["versions"]
    assert [(v["version"], v["status"], v["verdict"]) for v in found] == [
        (5, "candidate", None), (4, "candidate", "passed"), (3, "candidate", "passed"),
        (2, "candidate", "inconclusive"), (1, "champion", "no_baseline"),
    ]  # fmt: skip
    assert found[3]["metrics"] == {"roc_auc": 0.7}
    assert found[3]["link"] == "dags/churn__train/runs/r2"


def test_two_versions_side_by_side(get: Get, churn: Registry) -> None:
    found = get(f"{P}/compare", a="2", b="champion")
    assert (found["a"]["version"], found["b"]["version"], found["a"]["against"]) == (2, 1, 1)
    assert found["metrics"] == [
        {
            "name": "roc_auc", "lower_is_better": False, "same_rows": True,
            "a": {"value": 0.7, "low": pytest.approx(0.6), "high": pytest.approx(0.8)},
            "b": {"value": 0.65, "low": 0.6, "high": 0.7},
        }
    ]  # fmt: skip
    assert "the same 200 holdout rows" in found["note"]
    assert found["slices"][0]["value_of"] == MARKUP
    assert found["slices"][0]["b"] is None
    facts = {(f["group"], f["name"]): (f["a"], f["b"], f["differs"]) for f in found["facts"]}
    assert facts["size", "model file"] == ("2.00 MB", "2.00 MB", False)
    assert facts["params", "C"] == ("2.0", "1.0", True)
    other = get(f"{P}/compare", a="1", b="2")["metrics"][0]
    assert (other["a"]["value"], other["b"]["value"], other["same_rows"]) == (0.65, 0.7, True)
    assert get(f"{P}/compare")["a"]["version"] == 5


def test_versions_measured_on_their_own_holdouts_are_said_to_be(get: Get, churn: Registry) -> None:
    churn.annotate(3, "evaluation", evaluation(None, "h3"), op_id="e3")
    found = get(f"{P}/compare", a="3", b="1")
    assert not found["metrics"][0]["same_rows"]
    assert "own training" in found["note"]


def test_performance_with_the_champions_on_the_axis_of_data(get: Get, churn: Registry) -> None:
    found = get(f"{P}/performance")
    assert (found["metric"], found["lower_is_better"]) == ("roc_auc", False)
    assert [(p["value"], p["verdict"]) for p in found["points"]] == [
        (0.7, "ok"),
        (0.66, "ok"),
        (None, "pending_labels"),
    ]
    assert [(m["version"], m["what"], m["by"]) for m in found["marks"]] == [
        (1, "promoted", None), (4, "promoted", None), (1, "rolled back", "bob"),
    ]  # fmt: skip
    assert found["marks"][0]["at"] == "2026-04-01T00:00:00+00:00"


def test_a_champion_of_before_the_first_check_stands_where_its_rows_end(site: Site, get: Get) -> None:
    champion(site.pipeline("churn"))
    assert get(f"{P}/performance")["marks"][0]["at"] == "2026-04-01T00:00:00+00:00"


def test_drift_per_column_the_worst_first(get: Get, churn: Registry) -> None:
    found = get(f"{P}/drift")
    assert [w["key"] for w in found["windows"]] == [
        "20260501T000000Z-20260601T000000Z",
        "20260601T000000Z-20260701T000000Z",
    ]
    assert [(c["name"], c["prediction"]) for c in found["columns"]] == [
        (MARKUP, False), ("age", False), ("probability", True),
    ]  # fmt: skip
    assert [cell and cell["drifted"] for cell in found["columns"][2]["cells"]] == [None, False]
    assert found["columns"][0]["cells"][0]["threshold"] is None  # a check from before it was kept
    assert found["windows"][0]["report"] == f"mlops/reports/churn__monitor/{'7' * 64}"
    assert len(get(f"{P}/drift", windows=1)["windows"]) == 1


def test_columns_stand_by_how_far_they_are_over_their_own_limits(site: Site, get: Get, churn: Registry) -> None:
    common = {"kind": "number", "p_value": 0.0, "drifted": True, "statistic": "W1", "sentence": "s"}
    large = common | {"name": "large", "effect": 0.4, "threshold": 0.33}
    small = common | {"name": "small", "effect": 0.1, "threshold": 0.02, "statistic": "missing rate"}
    check(site.store, "churn", "drift", 7, "drift", version=1, columns=[large, small])
    found = get(f"{P}/drift", windows=1)["columns"]
    assert [(c["name"], c["cells"][0]["threshold"]) for c in found] == [("small", 0.02), ("large", 0.33)]


def test_lineage_as_a_graph(get: Get, churn: Registry) -> None:
    found = get(f"{P}/lineage", version="champion")
    ids = {n["id"] for n in found["nodes"]}
    assert {"data", "code", "config", "run", "model", "verdict-0", "delivery-0"} <= ids
    assert all(e["source"] in ids and e["target"] in ids for e in found["edges"])
    assert {e["target"] for e in found["edges"] if e["source"] == "run"} == {"model"}
    assert get(f"{P}/lineage", version="2")["version"] == 2


def test_reports_and_the_card_of_a_version(site: Site, get: Get, churn: Registry) -> None:
    assert get(f"{P}/reports")["card"] is None
    site.store.put(layout.report("churn__train", CARD), b"<p>card</p>")
    found = get(f"{P}/reports")
    assert found["card"] == f"mlops/reports/churn__train/{CARD}"
    assert [(r["name"], r["about"]) for r in found["reports"]] == [
        ("Gate report", "v1"),
        ("Drift report", "2026-06-01 to 2026-07-01"),
        ("Drift report", "2026-05-01 to 2026-06-01"),
    ]
    site.readable = {"churn__train"}
    assert [r["name"] for r in get(f"{P}/reports")["reports"]] == ["Gate report"]
    assert not any(e["report"] for e in get(f"{P}/timeline", kind="check")["events"])


def test_what_is_not_there_and_what_may_not_be_seen_look_the_same(
    site: Site, client: TestClient, churn: Registry
) -> None:
    site.pipeline("hidden")
    champion(Registry(site.store, "hidden"))
    site.run("hidden__train", "r1")
    site.readable = {f"churn__{s}" for s in ("train", "predict")} | {"hidden__monitor"}
    tails = ("", "/timeline", "/versions", "/compare", "/performance", "/drift", "/lineage", "/reports",
             "/distribution?window=w&column=c")  # fmt: skip
    for tail in tails:
        hidden, absent = (
            client.get(f"/mlops/api/pipelines/{name}{tail}", headers=as_role("viewer")) for name in ("hidden", "absent")
        )
        assert (hidden.status_code, absent.status_code) == (404, 404), tail
        assert hidden.text.replace("hidden", "absent") == absent.text
    for dag_id in ("hidden__train", "absent__train", "hidden__monitor", "churn__monitor", "other"):
        answer = client.get(f"/mlops/api/runs/{dag_id}?run_id=r1", headers=as_role("viewer"))
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json"), dag_id
    for tail in ("/compare?a=77", "/lineage?version=challenger", "/distribution?window=w&column=c"):
        assert client.get(f"/mlops/api/{P}{tail}", headers=as_role("viewer")).status_code == 404, tail
    for tail in ("/compare?a=x", "/timeline?kind=secret", "/drift?windows=0", "/distribution"):
        assert client.get(f"/mlops/api/{P}{tail}", headers=as_role("viewer")).status_code == 422, tail
    for name in ("..", "a%2Fb", "%00"):
        assert client.get(f"/mlops/api/pipelines/{name}/timeline", headers=as_role("viewer")).status_code == 404, name


def test_runs_and_questions_are_shown_to_whoever_may_read_those(
    site: Site, client: TestClient, get: Get, churn: Registry
) -> None:
    site.ask("churn__train", "q1", "Promote churn version 2?")
    row = get(P)["row"]
    assert (row["last_training_run"]["run_id"], len(row["approvals"])) == ("q1", 1)
    site.refused = {"RUN", "HITL_DETAIL"}
    row = get(P)["row"]
    assert (row["last_training_run"], row["approvals"], row["attention"]["code"]) == (None, [], "drift")
    assert client.get("/mlops/api/runs/churn__train?run_id=q1", headers=as_role("viewer")).status_code == 404


def test_a_store_that_does_not_answer_is_a_503_and_the_head_still_shows(
    site: Site, client: TestClient, reader: StoreReader, churn: Registry
) -> None:
    def down() -> LocalStore:
        raise TimeoutError("s3://key:secret@host")

    reader.open_store = down
    answer = client.get(f"/mlops/api/{P}/timeline", headers=as_role("viewer"))
    assert answer.status_code == 503
    assert "secret" not in answer.text
    head = client.get(f"/mlops/api/{P}", headers=as_role("viewer")).json()
    assert head["store_problem"]
    assert head["row"]["owner"] == "ops"


def test_records_are_read_again_after_a_while_and_soon_while_a_run_is_at_work(
    site: Site, get: Get, reader: StoreReader, churn: Registry
) -> None:
    now = [1000.0]
    reader.clock = lambda: now[0]

    def windows() -> int:
        return len(get(f"{P}/drift")["windows"])

    site.run("churn__train", "r4", at=NOW)
    assert windows() == 2
    # A check is no commit, so that nothing tells of it: neither the index nor a run.
    check(site.store, "churn", "drift", 7, "drift", version=1)
    now[0] += OLD - 1
    assert windows() == 2
    now[0] += 2
    assert windows() == 3
    site.run("churn__monitor", "m1", "running")
    assert windows() == 3
    check(site.store, "churn", "drift", 8, "drift", version=1)
    now[0] += AT_WORK - 1
    assert windows() == 3
    now[0] += 2
    assert windows() == 4


def test_one_reading_serves_the_questions_of_a_page(
    site: Site, reader: StoreReader, churn: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, asked, go = Records.read, [], threading.Event()

    def slow(store: Any, name: str) -> Records:
        asked.append(name)
        go.wait(10)
        return read(store, name)

    monkeypatch.setattr(Records, "read", slow)
    now = [1000.0]
    reader.clock = lambda: now[0]
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(reader.records, "churn", (RUNNING,), None, site.store) for _ in range(3)]
        while not asked:
            time.sleep(0.01)
        now[0] += 10
        go.set()
        found = {id(answer.result(10)) for answer in answers}
    assert (asked, len(found)) == (["churn"], 1)
    # It took ten seconds: five more are not yet worth reading all again.
    now[0] += AT_WORK
    reader.records("churn", (RUNNING,), None, site.store)
    assert len(asked) == 1


def test_a_distribution_is_asked_for_without_the_columns_that_are_private(
    site: Site, get: Get, client: TestClient, churn: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.ml import distributions

    asked: list[Any] = []

    def spread(store: Any, pipeline: str, window: Any, column: str, *, private: set[str]) -> Any:
        asked.append((pipeline, window.key, column, private))
        bins = (distributions.Bin(MARKUP, None, None, 0.5, 1.0),)
        return distributions.Spread(column, "category", 1, 1000, 500, 99, 0.0, 0.25, bins)

    monkeypatch.setattr(distributions, "spread", spread)
    churn.register(record("r6", config={"data": {"private": ["name"]}}), op_id="r6")
    check(site.store, "churn", "drift", 7, "no_drift", version=1, private=["street"])
    key = "20260601T000000Z-20260701T000000Z"
    found = get(f"{P}/distribution", window=key, column="town")
    assert asked == [("churn", key, "town", {"name", "street"})]
    assert found["bins"] == [{"label": MARKUP, "low": None, "high": None, "reference": 0.5, "current": 1.0}]
    assert (found["window"]["end"], found["current_missing"]) == ("2026-07-01T00:00:00+00:00", 0.25)
    assert found["note"] == "the reference is drawn from 500 of its rows"


def test_what_is_no_digest_is_linked_nowhere(site: Site, get: Get, churn: Registry) -> None:
    bad = "../../api/v2/dags"
    churn.register(record("r6"), op_id="r6")
    churn.annotate(6, "gates", gates("passed", "good") | {"report": bad}, op_id="g6")
    churn.annotate(6, "card", {"html": bad, "markdown": bad}, op_id="k6")
    for name in ("drift", "quality", "skew"):
        check(site.store, "churn", name, 8, "drift", version=1, report=bad)
    site.run("churn__monitor", "m1", "running", datetime.now(UTC) - timedelta(hours=1))
    site.run("churn__train", "r6", "running", datetime.now(UTC) - timedelta(hours=1))
    answers = [get(P), get(f"{P}/timeline", limit=200), get(f"{P}/reports", version="6"), get(f"{P}/drift")]
    answers += [get("runs/churn__monitor", run_id="m1"), get("runs/churn__train", run_id="r6"), get("fleet")]
    assert "../" not in json.dumps(answers)


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        ("2026-05-01T00:00:00+00:00", "2026-06-01T00:00:00+00:00", "2026-05-01 to 2026-06-01"),
        ("2026-05-01T18:00:00+00:00", "2026-05-02T00:00:00+00:00", "2026-05-01 18:00 to 2026-05-02 00:00"),
    ],
)
def test_windows_in_words(start: str, end: str, words: str) -> None:
    assert days({"start": start, "end": end}) == words


# --- runs --------------------------------------------------------------------------------------------


def run(site: Site, get: Get, run_id: str, dag_id: str = "churn__train", **more: Any) -> dict[str, Any]:
    """The page of a run that is at work."""
    site.run(dag_id, run_id, "running", datetime.now(UTC) - timedelta(hours=1), **more)
    found: dict[str, Any] = get(f"runs/{dag_id}", run_id=run_id)
    return found


def test_a_training_that_could_not_be_decided_says_what_would(site: Site, get: Get, churn: Registry) -> None:
    found = run(site, get, "r2")
    assert (found["title"], found["tone"], found["version"], found["against"]) == (
        "v2 was not promoted",
        "warning",
        2,
        1,
    )
    assert found["sentence"] == "inconclusive: cannot show it"
    assert found["changes"] == ["roc_auc at_least 0.6: about 41,000 holdout rows would decide it (there were 200)"]
    assert found["window"]["end"] == "2026-04-01T00:00:00+00:00"
    data = {f["name"]: f["value"] for s in found["sections"] if s["title"] == "Data" for f in s["facts"]}
    assert (data["rows"], data["fingerprint"]) == ("1,000", "f" * 64)
    assert [r["name"] for r in found["reports"]] == ["Gate report"]
    assert [e["what"] for e in found["events"]] == ["registered", "gates"]


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({"version": 3}, "about 38,000 holdout rows at least; the comparison with v3, the reference, can need more"),
        ({"version": 3, "needed": {"champion": 38329, "reference": 212345}},
         "what would decide it is about 38,000 holdout rows against the champion, and about 210,000 holdout rows "
         "against v3, the reference"),
        ({"version": 3, "needed": {"reference": None}},
         "what would decide it is more rows than can be said against v3, the reference"),
        ({"version": None, "needed": {"champion": 38329}}, "about 38,000 holdout rows would decide it"),
    ],
    ids=["of before both were kept", "both", "reference", "champion"],
)  # fmt: skip
def test_rows_are_told_for_each_comparison(
    site: Site, get: Get, churn: Registry, reference: dict[str, Any], said: str
) -> None:
    churn.register(record("r6"), op_id="r6")
    note = gates("inconclusive", "neither", needed_rows=38329, reference={"better": False, **reference})
    churn.annotate(6, "gates", note, op_id="g6")
    assert run(site, get, "r6")["changes"] == [f"roc_auc at_least 0.6: {said}"]


def test_rows_of_a_longer_time_than_the_run_is_about_are_explained(site: Site, get: Get, churn: Registry) -> None:
    churn.register(record("r6", config={"data": {"window": "90d"}}), op_id="r6")
    conf = {"window_start": "2026-03-01T00:00:00+00:00", "window_end": "2026-04-01T00:00:00+00:00"}
    found = run(site, get, "r6", conf=conf)
    assert found["window"]["start"] == "2026-03-01T00:00:00+00:00"
    rows = next(f["value"] for s in found["sections"] for f in s["facts"] if f["name"] == "rows of")
    assert rows.endswith("end excluded: data.window (90d) reaches back from the end of the run's own window")
    same = run(site, get, "r2")
    assert next(f["value"] for s in same["sections"] for f in s["facts"] if f["name"] == "rows of").endswith("excluded")


def test_what_a_training_came_to(site: Site, get: Get, churn: Registry) -> None:
    assert run(site, get, "r1")["title"] == "v1 became champion"
    refused = run(site, get, "r3")
    assert (refused["title"], refused["tone"]) == ("v3 was not promoted: anna said no", "bad")
    churn.register(record("r6"), op_id="r6")
    churn.annotate(6, "gates", gates("rejected", "too low", threshold=0.62, value=0.61), op_id="g6")
    rejected = run(site, get, "r6")
    assert (rejected["title"], rejected["tone"]) == ("v6 was not promoted", "bad")
    assert rejected["changes"] == ["roc_auc at_least 0.6: it was 0.61, the limit is 0.62"]
    assert run(site, get, "fresh")["title"] == "The run is running"


def test_a_training_that_was_held_back_says_until_when(site: Site, get: Get, churn: Registry) -> None:
    config = Retrain.model_validate({"cooldown": "7d"})
    Ledger(site.store, "churn").claim(
        None, start="new_data", at=NOW, run="held", config=config, op_id="h", evidence="files"
    )
    found = run(site, get, "held")
    assert found["title"] == "The run is running"
    assert [e["title"] for e in found["events"]] == ["a training because of new_data was held back"]
    Ledger(site.store, "churn").claim("grant-x", start="retrain", at=NOW, run="lost", config=config, op_id="l")
    found = run(site, get, "lost")
    assert found["title"] == "This run did not train"
    assert "not in the retrain ledger" in found["changes"][0]


def test_a_monitoring_run_shows_what_it_wrote(site: Site, get: Get, churn: Registry) -> None:
    found = run(site, get, "m1", "churn__monitor")
    assert found["tone"] == "warning"
    assert found["title"].startswith("Alarm: drift")
    assert {c["name"] for c in found["checks"]} == {"drift", "performance"}
    assert {(r["name"], r["about"]) for r in found["reports"]} == {
        ("Drift report", "2026-05-01 to 2026-06-01"), ("Drift report", "2026-06-01 to 2026-07-01"),
    }  # fmt: skip
    assert any(e["what"] == "request" for e in found["events"])
    long_ago = NOW - timedelta(days=400)
    site.run("churn__monitor", "m0", "success", long_ago)
    old = get("runs/churn__monitor", run_id="m0")
    assert (old["title"], old["checks"], old["events"]) == ("The run decided nothing", [], [])


def test_of_runs_that_are_at_work_together_each_shows_its_own_checks(site: Site, get: Get, churn: Registry) -> None:
    began = datetime.now(UTC) - timedelta(hours=1)
    for run_id in ("m1", "m2"):
        site.run("churn__monitor", run_id, "running", began)
    check(site.store, "churn", "drift", 8, "no_drift", run_id="m1", version=1)
    check(site.store, "churn", "drift", 9, "drift", run_id="m2", version=1)
    found = {run_id: get("runs/churn__monitor", run_id=run_id) for run_id in ("m1", "m2")}
    # Those of the fixture name no run, as before runs were written: both were at work then.
    mine = {run_id: {c["window"]["start"][5:7] for c in page["checks"]} for run_id, page in found.items()}
    assert mine == {"m1": {"05", "06", "07", "08"}, "m2": {"05", "06", "07", "09"}}
    assert [page["window"]["start"][5:7] for page in found.values()] == ["08", "09"]
    # Another DAG's run may have the same id.
    site.run("churn__train", "m1", "running", began)
    assert get("runs/churn__train", run_id="m1")["checks"] == []
    told = {e["window"]["start"][5:7]: e["link"] for e in get(f"{P}/timeline", kind="check")["events"]}
    assert (told["08"], told["07"]) == ("dags/churn__monitor/runs/m1", None)


def test_predictions_and_changes_by_hand(site: Site, get: Get, churn: Registry) -> None:
    cost = {"wall_seconds": 2.0, "cpu_seconds": 1.0, "peak_mb": 100.0}
    there = cost | {"task": "SageMaker 2 × ml.m5.large", "wall_seconds": 120.0}
    job = {"name": "churn-1", "instances": 2, "instance_type": "ml.m5.large", "seconds": 60.0, "cost": there}
    output = "predictions/x.parquet"
    check(site.store, "churn", "prediction", 6, "", rows=1234, version=1, output=output, cost=cost, job=job)
    found = run(site, get, "p1", "churn__predict")
    assert found["title"] == "1,234 rows were scored by v1"
    facts = {s["title"]: {f["name"]: f["value"] for f in s["facts"]} for s in found["sections"]}
    assert facts.keys() == {"Prediction", "Cost"}
    assert facts["Prediction"]["job"] == "churn-1 on 2 × ml.m5.large, 60 s"
    assert facts["Cost"]["SageMaker 2 × ml.m5.large"].startswith("120.0 s")
    found = run(site, get, "g1", "churn__registry")
    assert found["title"] == "v1 became champion again: v4 was rolled back"


def test_a_run_that_waits_for_a_person_can_be_answered_from_its_page(site: Site, get: Get, churn: Registry) -> None:
    churn.register(record("r6"), op_id="r6")
    churn.annotate(6, "gates", gates("passed", "good"), op_id="g6")
    site.ask("churn__train", "r6", "Promote churn version 6?")
    found = get("runs/churn__train", run_id="r6")
    assert (found["title"], found["tone"]) == ("v6 waits for a person's answer", "warning")
    assert found["approvals"][0]["task_id"] == "approve.ask"


def test_run_ids_with_any_characters_are_found(site: Site, get: Get, churn: Registry) -> None:
    run_id = "manual__2026-11-27T05:00:00+00:00/a b?#%"
    found = run(site, get, run_id)
    assert found["run_id"] == run_id
    assert "?" not in found["link"]
    assert "/a" not in found["link"]
