"""Asking an environment's Airflow: what is waited for, what ends the waiting, and what is said of it."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from airflow_mlops.config.settings import Settings
from airflow_mlops.delivery import verification
from airflow_mlops.delivery.airflow_api import Server
from airflow_mlops.delivery.tree import TreeFile
from airflow_mlops.delivery.verification import Expected, expected_dags, smoke, verify
from airflow_mlops.exceptions import AirflowUnavailable, ConfigError, DeliveryError, VerificationFailed
from tests.unit.delivery.deliveries import bundle
from tests.unit.delivery.fake_airflow import COMMIT, OLD, FakeAirflow

SINCE = datetime(2026, 11, 27, 12, tzinfo=UTC)
DAGS = ("churn__predict", "churn__train")
EXPECTED = Expected("crm", COMMIT, DAGS, SINCE)


def error(after: int, file: str = "loader.py") -> dict[str, Any]:
    at = (SINCE + timedelta(seconds=after)).isoformat()
    return {"timestamp": at, "filename": file, "stack_trace": "Traceback\n  x\nValueError: no\n\n"}


@pytest.fixture
def there() -> FakeAirflow:
    return FakeAirflow()


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "SETTLE", 0.02)


def checked(there: FakeAirflow, timeout: float = 0.05) -> float:
    with there.api() as api:
        return verify(api, EXPECTED, timeout=timeout, poll=0.01)


# --- verify --------------------------------------------------------------------------------------


def test_every_dag_at_the_deployment(there: FakeAirflow) -> None:
    there.add(*DAGS, "another__train")
    assert checked(there) < 5


def test_it_waits_for_the_last_of_them(there: FakeAirflow) -> None:
    there.add("churn__train")
    there.add("churn__predict", version=OLD)
    there.errors = [error(-10)]
    said: list[str] = []

    def later(request: httpx.Request) -> None:
        if len(there.asked) > 12:
            there.add(*DAGS)
            there.errors = []

    there.broken = later
    with there.api() as api:
        verify(api, EXPECTED, timeout=10, poll=0.01, say=said.append)
    assert said[0] == "waiting: churn__predict is at 000000000000, and 1 more"


def test_pages_are_all_read(there: FakeAirflow) -> None:
    there.add(*(f"p{n:03}__train" for n in range(250)), *DAGS)
    assert len(there.api().dags("crm")) == 252
    assert checked(there) < 5
    assert there.asked.count("GET /api/v2/dags") >= 6


@pytest.mark.parametrize(
    ("show", "match", "hint"),
    [
        (
            lambda t: t.add("churn__train"),
            "does not run the deployment after .*: no DAG churn__predict",
            "git DAG bundle",
        ),
        (lambda t: t.add(*DAGS, version=OLD), "churn__predict is at 0{12}; churn__train is at", "refresh_interval"),
        (
            lambda t: t.add(*DAGS, bundle="dags-folder"),
            "churn__predict is in the bundle 'dags-folder'",
            "git DAG bundle",
        ),
        (lambda t: t.add(*DAGS, version=None), "does not version its code: churn__predict", "LocalDagBundle and S3Dag"),
        (lambda t: t.add(*DAGS, "churn__invalid"), "cannot use churn__invalid: there are errors", "airflow mlops lint"),
        (
            lambda t: t.add(*DAGS, "churn__invalid", description="churn.yaml:5:8: MLOPS_TEAM is not set"),
            r"there are errors in it\n.*: churn.yaml:5",
            "MLOPS_TEAM is not set",
        ),
    ],
    ids=["missing", "old", "elsewhere", "no versions", "invalid", "invalid, why"],
)
def test_what_fails(show: Any, match: str, hint: str, there: FakeAirflow) -> None:
    show(there)
    with pytest.raises(VerificationFailed, match=match) as raised:
        checked(there)
    assert hint in raised.value.hint


def test_an_import_error_of_the_deployment_ends_the_waiting(there: FakeAirflow) -> None:
    there.add("churn__train", version=OLD)
    there.add("churn__predict")
    there.errors = [error(5)]
    with pytest.raises(VerificationFailed, match=r"cannot import loader.py \(ValueError\)\n") as raised:
        checked(there, timeout=60)
    # What the code said is for the terminal: the message goes into the history.
    assert "loader.py: ValueError: no" in raised.value.hint
    assert raised.value.message.endswith("(ValueError)")


def test_an_import_error_of_a_file_that_was_read_until_now_ends_the_waiting(there: FakeAirflow) -> None:
    there.add(*DAGS, version=OLD)
    there.errors = [error(5, "other.py")]

    def fails(request: httpx.Request) -> None:
        if len(there.asked) > 4:
            there.dags.clear()  # the DAGs of a file that cannot be imported are stale
            there.errors = [error(5, "other.py"), error(7)]

    there.broken = fails
    with pytest.raises(VerificationFailed, match=r"cannot import loader.py \(ValueError\)\n"):
        checked(there, timeout=60)


def test_a_mended_file_is_waited_for_though_its_old_version_fails_again(there: FakeAirflow) -> None:
    there.errors = [error(-10)]

    def refreshed(request: httpx.Request) -> None:
        n = len(there.asked)
        there.errors = [error(n)] if n <= 30 else []
        if n > 30:
            there.add(*DAGS)

    there.broken = refreshed
    assert checked(there, timeout=60) > verification.SETTLE


def test_a_file_that_was_broken_before_the_first_look_ends_in_time(there: FakeAirflow) -> None:
    there.errors = [error(5)]
    with pytest.raises(VerificationFailed, match=r"cannot import loader.py \(ValueError\)\n"):
        checked(there)
    # Another file is read still, at the version before: that nothing is refreshed says more than the error.
    there.add(*DAGS, version=OLD)
    with pytest.raises(VerificationFailed, match=r"0{12}; an import error that may be from before: loader.py"):
        checked(there)


def test_an_import_error_that_is_mended_is_none(there: FakeAirflow) -> None:
    there.add(*DAGS)
    there.errors = [error(1)]

    def mended(request: httpx.Request) -> None:
        if len(there.asked) > 4:
            there.errors = []

    there.broken = mended
    assert checked(there, timeout=60) < 5


def test_an_import_error_from_before_is_waited_for(there: FakeAirflow) -> None:
    there.add(*DAGS)
    there.errors = [error(-1)]
    with pytest.raises(
        VerificationFailed, match=r"does not run the deployment .*an import error from before: loader.py"
    ):
        checked(there)


def test_a_dag_that_is_invalid_since_long_ends_nothing(there: FakeAirflow) -> None:
    there.add(*DAGS)
    there.add("old__invalid", version=OLD)
    assert checked(there) < 5


# --- what does not answer ------------------------------------------------------------------------


def test_an_airflow_that_is_down_is_asked_until_the_time_is_up(there: FakeAirflow) -> None:
    there.add(*DAGS)

    def down(request: httpx.Request) -> httpx.Response | None:
        if len(there.asked) > 3:
            return None
        raise httpx.ConnectError("refused", request=request)

    there.broken = down
    assert checked(there, timeout=10) < 5
    there.broken = lambda request: httpx.Response(503)
    with pytest.raises(AirflowUnavailable, match="has not answered for 0 seconds: it answers 503") as raised:
        checked(there)
    assert raised.value.retryable


def test_patience_outlasts_a_restart(there: FakeAirflow, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("airflow_mlops.delivery.airflow_api.time.sleep", slept.append)
    there.add(*DAGS)
    there.broken = lambda request: httpx.Response(502) if len(there.asked) <= 4 else None
    with there.api(patience=60) as api:
        assert set(api.dags("crm")) == set(DAGS)
    assert slept == [0.5, 1.0, 2.0, 4.0]


def test_a_token_that_ran_out_is_renewed_once(there: FakeAirflow) -> None:
    there.add(*DAGS)
    with there.api() as api:
        api.dags("crm")
        there.token = "other"
        api.dags("crm")
    assert there.asked.count("POST /auth/token") == 2
    there.broken = lambda request: httpx.Response(401) if "/api/" in request.url.path else None
    with pytest.raises(DeliveryError, match="refuses GET dags: 401"):
        checked(there)


def test_a_token_of_ones_own(there: FakeAirflow) -> None:
    there.add(*DAGS)
    with there.api(token="t0ken") as api:
        assert set(api.dags("crm")) == set(DAGS)
    assert "POST /auth/token" not in there.asked
    with there.api(token="wrong") as api, pytest.raises(DeliveryError, match="401"):
        api.dags("crm")
    assert there.asked.count("GET /api/v2/dags") == 2


def test_no_login_and_a_wrong_one(there: FakeAirflow) -> None:
    with there.api(username="admin") as api, pytest.raises(ConfigError, match="there is no login for the Airflow at"):
        api.dags("crm")
    with there.api(username="admin", password="wr0ng") as api, pytest.raises(DeliveryError) as raised:
        api.dags("crm")
    assert "refuses the login admin: 401" in str(raised.value)
    assert "wr0ng" not in str(raised.value) + repr(raised.value)


def test_secrets_are_shown_nowhere(there: FakeAirflow) -> None:
    there.broken = lambda request: httpx.Response(403, text="p4ss may not") if "/api/" in request.url.path else None
    with there.api() as api, pytest.raises(DeliveryError, match=r"403 \*\*\* may not") as raised:
        api.dags("crm")
    assert "read DAGs" in raised.value.hint
    assert "p4ss" not in repr(Server("http://a", "admin", "p4ss"))
    for url in ("http://u:p@h", "ftp://h", "h:8080", ""):
        with pytest.raises(ConfigError, match="the address of an Airflow is"):
            Server(url)


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), httpx.Response(200, json=["x"])])
def test_something_else_than_airflow_answers(answer: httpx.Response, there: FakeAirflow) -> None:
    there.broken = lambda request: answer if "/api/" in request.url.path else None
    with there.api() as api, pytest.raises(DeliveryError, match="is no Airflow: /api/v2/dags gives no JSON object"):
        api.dags("crm")


# --- smoke ---------------------------------------------------------------------------------------


def ran(there: FakeAirflow, *dags: str, operation: str = "op", **more: Any) -> list[Any]:
    given = {"conf": {}, "timeout": 0.05, "poll": 0.01} | more
    with there.api() as api:
        return smoke(api, EXPECTED, dags, operation=operation, **given)


def test_every_training_is_run_and_nothing_promoted(there: FakeAirflow) -> None:
    there.add(*DAGS)
    (run,) = ran(there)
    assert (run.dag_id, run.run_id) == ("churn__train", f"smoke__{COMMIT[:12]}__op")
    assert run.url == f"http://there:8080/dags/churn__train/runs/{run.run_id}"
    conf = {"promote": False, "window_start": "2026-11-26T00:00:00+00:00", "window_end": "2026-11-27T00:00:00+00:00"}
    assert there.runs[run.dag_id, run.run_id]["conf"] == conf
    # It is paused again, as it was.
    assert there.dags["churn__train"]["is_paused"] is True
    assert ran(there)[0].run_id == run.run_id
    assert len(there.runs) == 1


def test_what_the_project_says_goes_before(there: FakeAirflow) -> None:
    there.add("a__train", "b__predict", timetable_summary=None, is_paused=False)
    there.dags["b__predict"]["params"] = {"seed": {}}
    ran(there, "a__train", "b__predict", conf={"promote": True, "seed": 3})
    assert [run["conf"] for run in there.runs.values()] == [{"promote": True, "seed": 3}, {"seed": 3}]
    assert not any("PATCH" in asked for asked in there.asked)


def test_a_run_that_failed_is_not_touched_and_another_one_started(there: FakeAirflow) -> None:
    there.add(*DAGS)
    there.ends = "failed"
    with pytest.raises(VerificationFailed, match=r"the smoke run of churn__train failed: train.fit: http://there"):
        ran(there)
    assert there.dags["churn__train"]["is_paused"] is True
    there.ends = "success"
    assert ran(there)[0].run_id == f"smoke__{COMMIT[:12]}__op__2"


class Killed(BaseException):
    """Nothing is done any more, not even what is to be done at the end."""


def killed(there: FakeAirflow, at: int) -> bool:
    """Run it, killed before its question number ``at``; whether it came that far."""
    before = len(there.asked)

    def die(request: httpx.Request) -> None:
        if len(there.asked) - before >= at:
            raise Killed

    there.broken = die
    try:
        with suppress(VerificationFailed):
            ran(there)
    except Killed:
        return True
    finally:
        there.broken = lambda request: None
    return False


@pytest.mark.parametrize("ends", ["success", "failed"])
def test_a_dag_that_was_paused_is_so_again_wherever_the_first_try_was_killed(ends: str) -> None:
    for at in range(1, 100):
        there = FakeAirflow()
        there.add(*DAGS)
        there.ends = ends
        if not killed(there, at):
            break
        there.ends = "success"
        ran(there)
        assert there.dags["churn__train"]["is_paused"] is True, at
    assert at > 6


def test_a_dag_that_a_person_switched_on_since_stays_on(there: FakeAirflow) -> None:
    there.add(*DAGS)
    ran(there)
    there.dags["churn__train"]["is_paused"] = False
    ran(there)
    assert there.dags["churn__train"]["is_paused"] is False


def test_a_run_that_does_not_end(there: FakeAirflow) -> None:
    there.add(*DAGS)
    there.ends = "running"
    with pytest.raises(VerificationFailed, match=r"is still running after 0\.05 seconds"):
        ran(there)


def test_a_run_that_waits_behind_another_one(there: FakeAirflow) -> None:
    there.add(*DAGS)
    there.ends = "queued"
    there.runs["churn__train", "scheduled__1"] = {"dag_run_id": "scheduled__1", "state": "running", "note": None}
    said: list[str] = []
    with pytest.raises(VerificationFailed, match=r"is still queued after 0\.05 seconds behind scheduled__1: http") as e:
        ran(there, say=said.append)
    assert "a run before it, wait for data, a slot, or a person" in str(e.value.hint)
    assert said[1:] == [f"smoke__{COMMIT[:12]}__op waits behind scheduled__1"]


def test_a_run_of_another_version(there: FakeAirflow) -> None:
    there.add(*DAGS, version=OLD)
    with pytest.raises(VerificationFailed, match="ran another version than cccccccccccc"):
        ran(there)


def test_a_run_that_is_bound_to_no_version(there: FakeAirflow) -> None:
    there.add(*DAGS, version=None)
    with pytest.raises(VerificationFailed, match="churn__train is bound to no version of its code") as e:
        ran(there)
    assert "disable_bundle_versioning" in str(e.value.hint)


def test_a_dag_that_is_not_there(there: FakeAirflow) -> None:
    with pytest.raises(VerificationFailed, match="has no DAG none__train to run"):
        ran(there, "none__train")


def test_a_form_that_refuses(there: FakeAirflow) -> None:
    there.add(*DAGS)
    refused = httpx.Response(400, json={"detail": "'x' is not of type 'integer'"})
    there.broken = lambda request: refused if request.method == "POST" and "dagRuns" in request.url.path else None
    with pytest.raises(DeliveryError, match=r"refuses POST dags/churn__train/dagRuns: 400 .*not of type"):
        ran(there, conf={"seed": "x"})
    assert there.dags["churn__train"]["is_paused"] is True


def test_which_dags_a_bundle_has() -> None:
    found = expected_dags(bundle("a"), "staging", Settings(allowed_imports=()))
    assert "churn__train" in found
    assert list(found) == sorted(found)
    assert all(name.startswith("churn__") for name in found)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"pipelines/churn.yaml": "pipeline: churn\nlevle: 1\n"},
            r"pipelines/churn.yaml has errors in staging: `data` is missing",
        ),
        ({"pipelines/churn.yaml": "pipeline: ["}, r"pipelines/churn.yaml has errors in staging: not valid YAML"),
        (
            {"pipelines/base.yaml": "environments: {dev: {}}"},
            r"churn.yaml has errors in staging: the environment 'staging'",
        ),
        ({"pipelines/churn.yaml": None}, r"the bundle has no pipeline in pipelines/"),
    ],
)
def test_a_bundle_of_which_nobody_can_say_what_it_should_become(change: dict[str, str | None], match: str) -> None:
    made = bundle("a")
    files = {path: file for path, file in made.files.items() if change.get(path, "") is not None}
    files |= {path: TreeFile(text.encode()) for path, text in change.items() if text is not None}
    with pytest.raises(ConfigError, match=match):
        expected_dags(dataclasses.replace(made, files=files), "staging", Settings())
