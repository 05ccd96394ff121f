"""The fleet page's API against Airflow's own tables and a store on disk."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import wait as futures_wait
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from fastapi import FastAPI
from fastapi.testclient import TestClient

from airflow_mlops.exceptions import StoreUnavailable
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.plugins.api.attention import RULES
from airflow_mlops.plugins.api.reader import UNREADABLE, WAITING, StoreReader
from airflow_mlops.registry.records import Records
from airflow_mlops.store import LocalStore
from tests.unit.plugins.pages import NOW, Get, Site, as_role, champion, check, gates, record

MARKUP = "<script>alert(1)</script>'\"&"


def row(site: Site, get: Get, pipeline: str = "churn", **query: Any) -> dict[str, Any]:
    """The row of a pipeline, read to its end."""
    found = get("fleet", **query)
    return next(r for r in found["rows"] if r["pipeline"] == pipeline)


def test_a_row_tells_what_airflow_and_the_store_know(site: Site, get: Get) -> None:
    registry = site.pipeline("churn", level=2, owner="ops-ml")
    champion(registry)
    registry.annotate(
        1, "evaluation", {"metrics": {"log_loss": {"candidate": 0.5, "lower_is_better": True}}}, op_id="e"
    )
    for month, value in ((5, 0.52), (6, 0.54)):
        check(site.store, "churn", "performance", month, "ok", version=1, metric="log_loss", value=value, baseline=0.5)
    check(site.store, "churn", "drift", 6, "no_drift", version=1, report="b" * 64)
    cost = {"task": "train.fit", "wall_seconds": 3600.0, "cpu_seconds": 10.0, "peak_mb": 1.0}
    registry.annotate(1, "cost", cost | {"price_per_hour": 2.0, "currency": "EUR"}, op_id="c")
    site.run("churn__train", "r1")
    found = row(site, get)
    assert (found["owner"], found["level"], found["read"], found["versions"]) == ("ops-ml", 2, True, 1)
    assert found["champion"]["version"] == 1
    assert found["champion"]["trained_until"] == "2026-04-01T00:00:00+00:00"
    assert found["training"]["verdict"] == "passed"
    assert found["training"]["link"] == "dags/churn__train/runs/r1"
    assert found["last_training_run"]["state"] == "success"
    assert found["drift"]["report"] == f"mlops/reports/churn__monitor/{'b' * 64}"
    trend = found["performance"]
    assert (trend["value"], trend["baseline"], trend["lower_is_better"]) == (0.54, 0.5, True)
    assert [p["value"] for p in trend["points"]] == [0.52, 0.54]
    assert (found["cost"]["wall_seconds"], found["cost"]["money"]) == (3600.0, ["2.00 EUR"])
    assert found["attention"] == {
        "level": "ok", "code": "ok", "reason": "champion v1, no alarm",
        "link": "dags/churn__train/plugin/mlops-pipeline",
    }  # fmt: skip
    assert found["dags"] == {s: f"churn__{s}" for s in ("train", "predict", "monitor", "registry")}


def _nothing(site: Site) -> None:
    site.pipeline("churn")


def _fine(site: Site) -> None:
    champion(site.pipeline("churn"))


def _no_champion(site: Site) -> None:
    registry = site.pipeline("churn")
    registry.register(record(), op_id="r")
    registry.annotate(1, "gates", gates("rejected", "too low"), op_id="g")


def _fleet_of_one(site: Site) -> None:
    registry = site.pipeline("churn")
    registry.register(record(), op_id="r", key="LGA")
    registry.promote(1, expected=None, op_id="p", reason="passed", key="LGA")


def _approval(site: Site) -> None:
    _fine(site)
    site.ask("churn__train", "r2", "Promote churn version 2?")


def _failed(site: Site) -> None:
    _fine(site)
    site.run("churn__monitor", "m1", "failed")


def _invalid(site: Site) -> None:
    site.dag("churn__invalid", level=None, tags=("invalid",), _dag_display_property_value="! churn.yaml:3: no such key")


def _alarm(name: str, verdict: str) -> Any:
    def put(site: Site) -> None:
        _fine(site)
        check(site.store, "churn", name, 5, "drift", version=1)
        check(site.store, "churn", name, 6, verdict, version=1)

    return put


def _no_better(site: Site) -> None:
    registry = site.pipeline("churn")
    champion(registry)
    registry.register(record("r2"), op_id="r2")
    registry.annotate(2, "gates", gates("inconclusive", "too few rows"), op_id="g2")
    check(site.store, "churn", "performance", 6, "drop", version=1)


def _answered(site: Site) -> None:
    """The alarm was about a champion that has been replaced."""
    registry = site.pipeline("churn")
    champion(registry)
    check(site.store, "churn", "drift", 6, "drift", version=1)
    champion(registry, 2, expected=1)


def _suppressed(*reasons: str) -> Any:
    from airflow_mlops.config.models import Retrain

    def put(site: Site) -> None:
        _fine(site)
        ledger, config = Ledger(site.store, "churn"), Retrain.model_validate({"cooldown": "7d"})
        ledger.claim(None, start="schedule", at=NOW, run="r0", config=config, op_id="c")
        ledger.request([*reasons], evidence="e", at=NOW, config=config, op_id="q")

    return put


def _rollout(site: Site) -> None:
    registry = site.pipeline("churn")
    champion(registry)
    registry.register(record("r2"), op_id="r2")
    registry.begin_rollout(2, expected=1, steps=["shadow", "full"], op_id="b", reason="passed")


@pytest.mark.parametrize(
    ("put", "code", "level", "says"),
    [
        (_invalid, "invalid", "action", "churn.yaml:3: no such key"),
        (_approval, "approval", "action", "Promote churn version 2?"),
        (_failed, "failed", "action", "the last monitoring run failed"),
        (_no_better, "no_better", "action", "performance drop, and the newest candidate, v2, is inconclusive"),
        (_alarm("performance", "drop"), "performance", "warning", "performance drop"),
        (_alarm("skew", "skew"), "skew", "warning", "skew"),
        (_alarm("quality", "failed"), "quality", "warning", "quality failed"),
        (_alarm("drift", "drift"), "drift", "warning", "drift"),
        (_alarm("drift", "no_drift"), "ok", "ok", "no alarm"),
        (_alarm("staleness", "stale"), "stale", "warning", "staleness is stale"),
        (_suppressed("drift"), "suppressed", "warning", "cool-down"),
        (_suppressed("new_data"), "ok", "ok", "champion v1, nothing has checked what it predicts"),
        (_no_champion, "no_champion", "warning", "v1 was not promoted"),
        (_nothing, "no_champion", "warning", "never trained"),
        (_fleet_of_one, "ok", "ok", "nothing has checked what it predicts"),
        (_rollout, "rollout", "ok", "v2 is rolling out: shadow"),
        (_answered, "ok", "ok", "champion v2"),
    ],
)
def test_what_needs_attention(site: Site, get: Get, put: Any, code: str, level: str, says: str) -> None:
    put(site)
    found = row(site, get)["attention"]
    assert (found["code"], found["level"]) == (code, level)
    assert says in found["reason"]
    assert not found["link"].startswith(("/", "http"))


def test_the_order_of_the_rules_goes_from_action_to_ok() -> None:
    levels = [level for _, level, _ in RULES]
    assert levels == sorted(levels, key=["action", "warning", "unknown", "ok"].index)
    assert len({code for code, _, _ in RULES}) == len(RULES)


def test_records_that_cannot_be_used_are_told_and_the_others_shown(site: Site, get: Get) -> None:
    champion(site.pipeline("churn"))
    champion(site.pipeline("good"))
    site.store.put("pipelines/churn/ledger/0000000001.json", b"{broken")
    found = get("fleet")
    assert [(r["pipeline"], r["attention"]["code"], r["read"]) for r in found["rows"]] == [
        ("churn", "damaged", False), ("good", "ok", True),
    ]  # fmt: skip
    assert (found["pending"], found["store_problem"]) == (0, None)


def fill(site: Site) -> None:
    """Six pipelines: a and b fine, c with drift, d without champion, e that waits for an answer, f without records."""
    for name, owner in zip("abcdef", ("ops", "ops", "ml", "ml", "ml", "ops"), strict=True):
        registry = site.pipeline(name, level=0 if name == "f" else 1, owner=owner)
        if name in "abce":
            champion(registry)
    check(site.store, "c", "drift", 6, "drift", version=1)
    site.ask("e__train", "r1", "Promote e?")


def names(found: dict[str, Any]) -> str:
    return "".join(r["pipeline"] for r in found["rows"])


def test_the_most_urgent_come_first_and_pages_follow_each_other(site: Site, get: Get) -> None:
    fill(site)
    assert names(get("fleet")) == "ecdfab"
    assert names(get("fleet", limit=4)) == "ecdf"
    last = get("fleet", limit=4, offset=4)
    assert (names(last), last["total"], last["offset"]) == ("ab", 6, 4)
    assert last["counts"] == {"action": 1, "warning": 3, "unknown": 0, "ok": 2}
    assert (last["owners"], last["levels"]) == (["ml", "ops"], [0, 1])


def test_a_page_behind_the_last_one_is_the_last_one(site: Site, get: Get) -> None:
    fill(site)
    get("fleet")
    for offset, limit, begins, shown in ((25, 25, 0, "ecdfab"), (6, 3, 3, "fab"), (100, 4, 4, "ab"), (5, 2, 5, "b")):
        found = get("fleet", offset=offset, limit=limit)
        assert (found["offset"], names(found)) == (begins, shown)
    nothing = get("fleet", offset=25, search="nothing")
    assert (nothing["offset"], nothing["total"], nothing["rows"]) == (0, 0, [])


ASKED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"search": "ML"}, "ecd"),
    ({"search": "nothing"}, ""),
    ({"attention": "action,ok"}, "eab"),
    ({"level": "0"}, "f"),
    ({"owner": "ops"}, "fab"),
    ({"owner": "ops", "attention": "warning"}, "f"),
    ({"sort": "pipeline", "order": "desc"}, "fedcba"),
    ({"sort": "owner"}, "cdeabf"),
    ({"sort": "drift"}, "cabdef"),
    ({"sort": "approvals", "order": "desc"}, "eabcdf"),
    ({"sort": "champion"}, "abcedf"),
    ({"sort": "champion", "order": "desc"}, "ecbadf"),
)


def test_search_filters_and_columns(site: Site, get: Get) -> None:
    fill(site)
    get("fleet")
    for query, expected in ASKED:
        found = get("fleet", **query)
        assert names(found) == expected, query
        assert sum(found["counts"].values()) == 6


def test_wrong_parameters_are_refused(client: TestClient) -> None:
    for query in ("limit=0", "limit=1000", "offset=-1", "sort=secret", "order=up", "attention=high", "level=x"):
        assert client.get(f"/mlops/api/fleet?{query}", headers=as_role("viewer")).status_code == 422, query


def test_a_pipeline_whose_training_may_not_be_read_is_nowhere(site: Site, get: Get, client: TestClient) -> None:
    fill(site)
    everything = get("fleet")
    site.readable = {"a__train", "b__train", "b__monitor", "c__monitor", "e__predict"}
    found = get("fleet")
    assert names(found) == "ab"
    assert (found["total"], found["counts"]) == (2, {"action": 0, "warning": 0, "unknown": 0, "ok": 2})
    assert (found["owners"], found["levels"], found["pending"]) == (["ops"], [1], 0)
    assert [r["dags"] for r in found["rows"]] == [
        {"train": "a__train"}, {"monitor": "b__monitor", "train": "b__train"},
    ]  # fmt: skip
    assert get("attention") == {
        "counts": {"action": 0, "warning": 0, "unknown": 0, "ok": 2}, "rows": [], "pending": 0, "store_problem": None,
        "link": "plugin/mlops",
    }  # fmt: skip
    assert not {"Promote e?", "c__", "d__"} & set(json.dumps(found))
    # What others see changes nothing for this user, not even the tag of the answer.
    tag = client.get("/mlops/api/fleet", headers=as_role("viewer")).headers["etag"]
    check(site.store, "c", "drift", 7, "no_drift", version=1)
    site.run("d__train", "r9", "failed")
    assert client.get("/mlops/api/fleet", headers=as_role("viewer")).headers["etag"] == tag
    site.readable = None
    assert len(get("fleet")["rows"]) == len(everything["rows"])


def test_users_with_different_rights_do_not_have_it_read_again(site: Site, get: Get, reader: StoreReader) -> None:
    champion(site.pipeline("churn"))
    check(site.store, "churn", "drift", 6, "drift", version=1, report="b" * 64)
    site.run("churn__monitor", "m1")
    assert row(site, get)["drift"]["report"]
    read = reader._read["churn"]
    site.readable = {"churn__train"}
    found = row(site, get)
    assert reader._read["churn"] is read
    assert (found["drift"]["verdict"], found["drift"]["report"], found["last_monitor_run"]) == ("drift", None, None)


def test_a_pipeline_that_is_only_in_the_store_is_not_shown(site: Site, get: Get) -> None:
    from airflow_mlops.registry import Registry

    champion(Registry(site.store, "orphan"))
    site.dag("other", level=None)
    site.dag("project__delivery", level=2)
    site.dag("gone__train", is_stale=True)
    assert get("fleet")["rows"] == []


def test_a_dag_whose_name_no_pipeline_can_have_is_none(site: Site, get: Get, client: TestClient) -> None:
    for name in ("", "_x", "a..b", "größe"):
        site.dag(f"{name}__train")
        site.run(f"{name}__train", "r1")
    fill(site)
    assert get("fleet")["total"] == 6
    assert not any(r["attention"]["code"] == "damaged" for r in get("fleet")["rows"])
    assert client.get("/mlops/api/pipelines/_x", headers=as_role("viewer")).status_code == 404
    assert client.get("/mlops/api/runs/_x__train?run_id=r1", headers=as_role("viewer")).status_code == 404


@pytest.mark.parametrize(
    ("known", "next_run", "schedule", "events"),
    [
        (("Asset or 0 0 1 */3 *", "Triggered by assets or At 00:00, every 3 months"),
         "2026-11-27T06:00:00+00:00", "At 00:00, every 3 months", "new data or a granted retrain"),
        (("Asset", "Triggered by assets"), None, None, "new data or a granted retrain"),
        (("0 6 * * *", ""), "2026-11-27T06:00:00+00:00", "0 6 * * *", None),
        (("None", "Never, external triggers only"), None, None, None),
        ((None, None), None, None, None),
    ],
)  # fmt: skip
def test_what_starts_a_training_next_in_words(
    site: Site, get: Get, known: tuple[str | None, ...], next_run: str | None, schedule: str | None, events: str | None
) -> None:
    assets = [{"asset": {"name": f"churn.{what}", "uri": f"x-mlops://churn/{what}"}} for what in ("data", "retrain")]
    site.dag(
        "churn__train",
        timetable_summary=known[0],
        timetable_description=known[1],
        next_dagrun_create_after=NOW if next_run else None,
        asset_expression={"any": assets} if events else None,
    )
    found = row(site, get)
    assert (found["next_run"], found["schedule"], found["events"]) == (next_run, schedule, events)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ({"asset": {"name": "churn.predictions"}}, "new predictions"),
        ({"all": [{"asset": {"name": "other.data"}}, {"alias": {"name": "mine"}}]}, "other.data and mine"),
        ({"any": []}, None),
    ],
)
def test_other_assets_are_told_by_their_names(site: Site, get: Get, expression: Any, words: str | None) -> None:
    site.dag("churn__train", asset_expression=expression)
    assert row(site, get)["events"] == words


def test_the_card_has_the_most_urgent_and_no_calm_ones(site: Site, get: Get) -> None:
    fill(site)
    found = get("attention", limit=2)
    assert [(r["pipeline"], r["attention"]["code"]) for r in found["rows"]] == [("e", "approval"), ("c", "drift")]
    assert found["counts"] == {"action": 1, "warning": 3, "unknown": 0, "ok": 2}


def test_markup_passes_as_text(site: Site, get: Get, client: TestClient) -> None:
    registry = site.pipeline("churn", owner=MARKUP)
    champion(registry)
    check(site.store, "churn", "drift", 6, "drift", version=1, sentence=MARKUP)
    site.ask("churn__train", "r2", MARKUP)
    answer = client.get("/mlops/api/fleet", headers=as_role("viewer"))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    found = answer.json()["rows"][0]
    assert (found["owner"], found["drift"]["sentence"]) == (MARKUP, MARKUP)
    assert found["approvals"][0]["subject"] == MARKUP


def test_what_the_browser_has_is_not_sent_again(site: Site, client: TestClient) -> None:
    fill(site)
    client.get("/mlops/api/fleet", headers=as_role("viewer"))
    first = client.get("/mlops/api/fleet", headers=as_role("viewer"))
    tag = {"If-None-Match": f"W/{first.headers['etag']}"}
    again = client.get("/mlops/api/fleet", headers=as_role("viewer") | tag)
    assert (again.status_code, again.content) == (304, b"")
    assert "no-cache" in again.headers["cache-control"]
    assert client.get("/mlops/api/fleet", headers=tag).status_code == 401
    site.run("a__train", "r9", "failed")
    assert client.get("/mlops/api/fleet", headers=as_role("viewer") | tag).status_code == 200


# --- a store that is slow or down --------------------------------------------------------------------


class Slow(LocalStore):
    """Hangs until it is let go."""

    def __init__(self, path: Any) -> None:
        super().__init__(path)
        self.go = threading.Event()
        self.asked = 0

    def get(self, key: str) -> bytes:
        self.asked += 1
        self.go.wait(30)
        return super().get(key)


def test_a_store_that_hangs_delays_one_answer_a_little_and_the_next_not_at_all(
    site: Site, get: Get, reader: StoreReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(site)
    slow = Slow(site.store.path)
    reader.open_store = lambda: slow
    reader.wait = 0.5
    waits: list[float] = []

    def wait(futures: Any, timeout: float) -> Any:
        waits.append(timeout)
        return futures_wait(futures, timeout=timeout)

    monkeypatch.setattr("airflow_mlops.plugins.api.reader.wait_for", wait)
    found = get("fleet")
    assert len(waits) == 1
    assert 0 < waits[0] <= 0.5
    assert "has not answered for 0.5 seconds" in found["store_problem"]
    # What Airflow knows is there, and what is urgent by it comes first.
    assert names(found)[0] == "e"
    assert (found["total"], found["pending"]) == (6, 6)
    get("fleet")
    get("attention")
    assert len(waits) == 1
    slow.go.set()
    assert wait_for(lambda: get("fleet")["pending"] == 0)
    assert get("fleet")["store_problem"] is None


def test_few_requests_wait_for_the_store_at_a_time(site: Site, client: TestClient, reader: StoreReader) -> None:
    champion(site.pipeline("churn"))
    slow = Slow(site.store.path)
    reader.open_store = lambda: slow
    reader.wait, reader.long_wait = 0.1, 0.1
    path, headers = "/mlops/api/pipelines/churn/timeline", as_role("viewer")
    assert "has not answered for 0.1 seconds" in client.get(path, headers=headers).json()["detail"]
    for _ in range(WAITING):
        reader._waiting.acquire()
    answer = client.get(path, headers=headers)
    assert (answer.status_code, "wait for the store already" in answer.text) == (503, True)
    assert client.get("/mlops/api/fleet", headers=headers).status_code == 200
    slow.go.set()


def test_a_store_that_is_down_is_asked_again_after_a_while_only(
    site: Site, get: Get, reader: StoreReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(site)
    asked = []

    def down() -> LocalStore:
        asked.append(1)
        raise StoreUnavailable("cannot reach s3://models", hint="check the network")

    reader.open_store = down
    found = get("fleet")
    assert found["store_problem"] == UNREADABLE
    # What Airflow knows needs somebody; of the others nobody can tell, and none of them counts as fine.
    assert names(found) == "eabcdf"
    assert found["counts"] == {"action": 1, "warning": 0, "unknown": 5, "ok": 0}
    assert found["rows"][1]["attention"] | {"link": ""} == {
        "level": "unknown", "code": "unread", "reason": "nobody can tell: the store does not answer", "link": "",
    }  # fmt: skip
    assert names(get("fleet", attention="unknown")) == "abcdf"
    card = get("attention")
    assert ([r["pipeline"] for r in card["rows"]], card["counts"]["unknown"]) == (["e"], 5)
    assert len(asked) == 1
    now = time.monotonic() + 100
    reader.clock = lambda: now
    reader.open_store = lambda: site.store
    assert get("fleet")["store_problem"] is None
    assert wait_for(lambda: get("fleet")["pending"] == 0)


def test_an_error_of_a_library_does_not_tell_its_text(site: Site, get: Get, reader: StoreReader) -> None:
    fill(site)

    def broken() -> LocalStore:
        raise RuntimeError("https://user:password@host")

    reader.open_store = broken
    assert "password" not in json.dumps(get("fleet"))
    assert get("fleet")["store_problem"] == UNREADABLE


def test_an_error_of_one_pipeline_is_told_to_nobody_else(
    site: Site, get: Get, reader: StoreReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(site)
    read = Records.read

    def failing(store: Any, name: str) -> Records:
        if name == "e":
            raise StoreUnavailable("pipelines/e/log/HEAD cannot be read")
        return read(store, name)

    monkeypatch.setattr(Records, "read", failing)
    assert wait_for(lambda: get("fleet")["pending"] == 1)
    found = get("fleet")
    assert found["store_problem"] is None
    assert "pipelines/e" not in json.dumps(found)
    told = next(row["attention"] for row in found["rows"] if row["pipeline"] == "e")
    assert (told["level"], told["code"]) == ("action", "damaged")
    assert "cannot be read now" in told["reason"]
    monkeypatch.setattr(Records, "read", read)
    now = time.monotonic() + 100
    reader.clock = lambda: now
    assert wait_for(lambda: get("fleet")["pending"] == 0)
    assert "cannot be read" not in json.dumps(get("fleet"))


def test_rows_beyond_the_page_are_read_in_the_background(site: Site, get: Get) -> None:
    fill(site)
    first = get("fleet", limit=1)
    assert first["rows"][0]["read"]
    assert sum(first["counts"].values()) == 6
    # Not before the last one is read does the fleet count as fine what may not be.
    assert first["counts"]["ok"] + first["counts"]["unknown"] + first["counts"]["warning"] == 5
    assert wait_for(lambda: get("fleet", limit=1)["pending"] == 0)
    assert all(r["read"] for r in get("fleet")["rows"])


def test_what_was_read_before_the_index_is_not_read_again_for_it(site: Site, reader: StoreReader) -> None:
    champion(site.pipeline("churn"))
    reader.read(["churn"], {"churn": ()}, {}, reader.begin() + 20)
    summaries, _ = reader.index(reader.begin() + 20)
    assert summaries["churn"].seq == 3
    assert reader.known({"churn": ()}, summaries, None).pending == set()
    assert reader.known({"churn": ("another run",)}, summaries, None).pending == {"churn"}


def test_a_run_that_ends_and_a_commit_make_a_row_new(site: Site, get: Get) -> None:
    registry = site.pipeline("churn")
    champion(registry)
    assert row(site, get)["drift"] is None
    check(site.store, "churn", "drift", 6, "drift", version=1)
    site.run("churn__monitor", "m1")
    assert row(site, get)["drift"]["verdict"] == "drift"
    registry.register(record("r2"), op_id="r2")
    time.sleep(1.1)  # the index of all registries is taken as new for a second
    assert row(site, get)["training"]["version"] == 2


def wait_for(done: Any, seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if done():
            return True
        time.sleep(0.05)
    return False


# --- who may ask -------------------------------------------------------------------------------------


def api_paths(client: TestClient) -> list[str]:
    app: Any = client.app
    api = next(r.app for r in app.routes if getattr(r, "path", "") == "/mlops/api")
    assert isinstance(api, FastAPI)
    return sorted(r.path for r in api.routes)  # type: ignore[attr-defined]


def test_every_route_asks_who_it_is(site: Site, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    champion(site.pipeline("churn"))
    paths = api_paths(client)
    assert "/fleet" in paths
    for path in paths:
        url = "/mlops/api" + path.format(pipeline="churn", dag_id="churn__train")
        assert client.get(url).status_code == 401, path
        assert client.get(url, headers={"Authorization": "Bearer not.a.token"}).status_code == 403, path
        assert client.get(url, headers=as_role(None)).status_code == 403, path
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert client.request(method, url, headers=as_role("admin")).status_code == 405, path
    monkeypatch.setattr(SimpleAuthManager, "is_authorized_view", lambda *_, **__: False)
    for path in paths:
        url = "/mlops/api" + path.format(pipeline="churn", dag_id="churn__train")
        assert client.get(url, headers=as_role("admin")).status_code == 403, path
