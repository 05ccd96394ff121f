"""``airflow mlops registry promote|rollback|retire|tag``: through a run of the DAG, or past Airflow."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from airflow_mlops.cli import live
from airflow_mlops.cli.live import BackfillError
from airflow_mlops.registry import Registry, op_id
from airflow_mlops.store import LocalStore

Run = Callable[..., Any]
FORM = ("action", "version", "expected", "key")
USER = pwd.getpwuid(os.getuid()).pw_name


class FakeScheduler:
    """Does what the task of ``churn__registry`` does, at once."""

    registry: Registry
    started: list[tuple[str, str, dict[str, Any], str | None]]
    does = True

    def __init__(self, say: Callable[[str], None] = print, *, again: str = "") -> None:
        self.again = again

    def require(self, *dag_ids: str) -> None:
        if dag_ids != (f"{self.registry.pipeline}__registry",):
            raise BackfillError(f"Airflow has no DAG {dag_ids}", hint="check the name")

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any], *, by: str | None = None) -> str:
        self.started.append((dag_id, run_id, dict(conf), by))
        return run_id

    def wait(self, dag_id: str, run_id: str) -> None:
        conf = self.started[-1][2]
        if not self.does:
            raise BackfillError(f"the run {run_id} of {dag_id} failed", hint=self.again)
        operation = op_id(dag_id, run_id, "registry.change", -1, *(conf[name] for name in FORM))
        said: dict[str, Any] = {"op_id": operation, "key": conf["key"], "reason": conf["reason"], "by": USER}
        if conf["action"] == "rollback":
            self.registry.rollback(expected=conf["expected"], **said)
        elif conf["action"] == "abort":
            self.registry.end_rollout(conf["version"], **said)
        elif conf["action"] == "promote":
            self.registry.promote(conf["version"], expected=conf["expected"], **said)
        else:
            self.registry.retire(conf["version"], **said)


@pytest.fixture
def scheduler(churn: Registry, monkeypatch: pytest.MonkeyPatch) -> type[FakeScheduler]:
    class Mine(FakeScheduler):
        registry = churn
        started: list[Any] = []  # noqa: RUF012 - one list for each test

    monkeypatch.setattr(live, "LiveScheduler", Mine)
    return Mine


@pytest.mark.parametrize(
    ("words", "conf", "said"),
    [
        (
            ("rollback", "churn", "--expected", "2"),
            {"action": "rollback", "key": None, "version": None, "expected": 2}, "champion is now v1 (was v2)",
        ),
        (
            ("promote", "churn:3", "--expected", "v2"),
            {"action": "promote", "key": None, "version": 3, "expected": 2}, "champion is now v3 (was v2)",
        ),
        (("retire", "churn:3"), {"action": "retire", "key": None, "version": 3, "expected": None},
         "v3 is retired"),
    ],
)  # fmt: skip
def test_a_change_is_a_run_and_its_result_is_told(
    scheduler: type[FakeScheduler], run: Run, words: tuple[str, ...], conf: dict[str, Any], said: str
) -> None:
    done = run(*words, "--reason", " because ")
    ((dag_id, run_id, sent, by),) = scheduler.started
    assert (dag_id, by, sent) == ("churn__registry", USER, conf | {"reason": "because"})
    assert done.code == 0
    assert done.out.splitlines() == [f"churn: {said}", f"  by {USER}, in the run {run_id} of churn__registry"]


def test_one_model_of_a_fleet_is_changed_by_a_run_with_its_key(
    scheduler: type[FakeScheduler], run: Run, registry_store: LocalStore
) -> None:
    fleet = Registry(registry_store, "delays")
    for number in (1, 2, 3):
        fleet.register_many({"LGA": {"model": {}}, "JFK": {"model": {}}}, op_id=f"r{number}")
    for key in ("LGA", "JFK"):
        fleet.promote(1, expected=None, op_id=f"p1{key}", reason="first", key=key)
        fleet.promote(2, expected=1, op_id=f"p2{key}", reason="better", key=key)
    scheduler.registry = fleet
    for words, said in (
        (("rollback", "delays[LGA]", "--expected", "2"), "delays[LGA]: champion is now v1 (was v2)"),
        (("promote", "delays[LGA]:3", "--expected", "1"), "delays[LGA]: champion is now v3 (was v1)"),
        (("retire", "delays[LGA]:2"), "delays[LGA]: v2 is retired"),
    ):
        done = run(*words, "--reason", "x")
        assert (done.code, done.out.splitlines()[0]) == (0, said), done.err
    assert [sent["key"] for _, _, sent, _ in scheduler.started] == ["LGA"] * 3
    assert [v.status for v in fleet.versions("LGA")] == ["candidate", "retired", "champion"]
    assert [v.status for v in fleet.versions("JFK")] == ["candidate", "champion", "candidate"]
    refused = run("rollback", "delays", "--expected", "2", "--reason", "x")
    assert (refused.code, "delays has a model for each of 2 keys: JFK, LGA" in refused.err) == (1, True)
    assert run("rollback", "delays[JFK]", "--expected", "2", "--reason", "x", "--break-glass").code == 0
    assert [v.status for v in fleet.versions("JFK")] == ["champion", "candidate", "candidate"]


def test_two_commands_are_two_runs(scheduler: type[FakeScheduler], run: Run) -> None:
    for _ in range(2):
        assert run("retire", "churn:3", "--reason", "x", "--no-wait").code == 0
    assert len({run_id for _, run_id, _, _ in scheduler.started}) == 2
    assert scheduler.registry.get(3).status == "candidate"


def test_a_run_that_failed_ends_the_command_with_1(scheduler: type[FakeScheduler], run: Run) -> None:
    scheduler.does = False
    done = run("rollback", "churn", "--expected", "2", "--reason", "x")
    assert (done.code, done.out) == (1, "")
    assert "airflow mlops registry list churn" in done.err


def test_a_run_that_changed_another_store_is_noticed(
    scheduler: type[FakeScheduler], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "wait", lambda self, dag_id, run_id: None)
    done = run("rollback", "churn", "--expected", "2", "--reason", "x")
    assert done.code == 1
    assert "changed nothing in file://" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rollback", "churn:1", "--expected", "2", "--reason", "x"), "a rollback finds its own"),
        (("rollback", "churn", "--expected", "none", "--reason", "x"), "'none' is no version"),
        (("rollback", "churn", "--expected", "2", "--reason", "  "), "--reason is empty"),
        (("promote", "churn", "--expected", "2", "--reason", "x"), "churn@champion is the champion already"),
        (("promote", "churn:9", "--expected", "2", "--reason", "x"), "there is no churn:9"),
        (("retire", "chrun:1", "--reason", "x"), "did you mean churn?"),
        (("rollback", "churn[LGA]", "--expected", "2", "--reason", "x"), "churn is no fleet"),
        (("rollback", "chrun", "--expected", "2", "--reason", "x"), "did you mean churn?"),
        (("retire", "churn:3", "--reason", "x", "--break-glass", "--no-wait"), "starts no run"),
        (("rollback", "churn", "--expected", "9" * 5000, "--reason", "x"), "is no version"),
        (("retire", f"churn:{'9' * 5000}", "--reason", "x"), "is no version"),
        (("rollback", "churn", "--expected", "2", "--reason", "\udcff"), "is not UTF-8"),
        (("tag", "churn:3", "stage=\udcff"), "is not UTF-8"),
        (("tag", "churn:3", "--remove", "stage"), "churn v3 has no tag stage"),
        (("tag", "churn:3"), "there is no tag"),
        (("tag", "churn:3", "stage"), "'stage' is no tag"),
    ],
)
def test_what_is_refused_starts_nothing(
    scheduler: type[FakeScheduler], run: Run, words: tuple[str, ...], message: str
) -> None:
    before = scheduler.registry.history()
    done = run(*words)
    assert (done.code, done.out, scheduler.started) == (1, "", [])
    assert message in " ".join(done.err.split())
    assert scheduler.registry.history() == before


def test_what_must_be_said_is_asked_for(scheduler: type[FakeScheduler], run: Run) -> None:
    assert run("rollback", "churn", "--reason", "x").code == 2
    assert run("rollback", "churn", "--expected", "2", "--break-glass").code == 2


def test_the_glass_is_broken_loudly(scheduler: type[FakeScheduler], run: Run) -> None:
    done = run("rollback", "churn", "--expected", "2", "--reason", "no scheduler", "--break-glass")
    assert scheduler.started == []
    assert done.out == f"churn: champion is now v1 (was v2)\n  by break-glass: {USER}\n"
    warning = " ".join(done.err.split())
    for bypassed in ("permissions", "audit log", "event of the asset churn.champion", "notification"):
        assert bypassed in warning
    assert max(map(len, done.err.splitlines())) <= 80
    row = scheduler.registry.history()[-1]
    assert (row["by"], row["reason"]) == (f"break-glass: {USER}", "no scheduler")
    again = run("rollback", "churn", "--expected", "2", "--reason", "no scheduler", "--break-glass")
    assert again.code == 1
    assert "churn@champion is v1, expected v2" in again.err
    assert run("promote", "churn:3", "--expected", "1", "--reason", "x", "--break-glass").code == 0
    assert run("retire", "churn:2", "--reason", "x", "--break-glass").code == 0
    assert [v.status for v in scheduler.registry.versions()] == ["candidate", "retired", "champion"]


def test_tags(churn: Registry, run: Run) -> None:
    assert run("tag", "churn:3", "stage=prod", "note=a=b").out == "churn v3: note=a=b, stage=prod\n"
    assert run("tag", "churn:3", "note=c", "--remove", "stage").out == "churn v3: note=c\n"
    assert run("tag", "churn:3", "--remove", "note").out == "churn v3: no tags\n"
    assert churn.get(3).tags == {}


def test_who_stops_waiting_is_told_that_the_run_goes_on(
    scheduler: type[FakeScheduler], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: FakeScheduler, dag_id: str, run_id: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scheduler, "wait", interrupted)
    done = run("rollback", "churn", "--expected", "2", "--reason", "x")
    ((_, run_id, _, _),) = scheduler.started
    assert (done.code, done.out) == (130, "")
    assert f"The run {run_id} of churn__registry, once started, goes on in Airflow." in done.err


def test_a_database_that_is_not_there(churn: Registry, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.jobs import job
    from sqlalchemy.exc import OperationalError

    def gone(job_type: str) -> None:
        raise OperationalError("SELECT job.id", {}, Exception("no such table: job"))

    monkeypatch.setattr(job, "most_recent_job", gone)
    done = run("rollback", "churn", "--expected", "2", "--reason", "x")
    assert (done.code, done.out) == (1, "")
    assert "Airflow's database cannot be used: no such table: job" in done.err
    assert "airflow db check" in done.err
    assert "Traceback" not in done.err


def test_no_champion_is_not_called_the_champion(registry_store: LocalStore, run: Run) -> None:
    Registry(registry_store, "new").register({"model": {}}, op_id="r")
    done = run("promote", "new", "--expected", "none", "--reason", "x")
    assert (done.code, "new has no champion" in done.err, "already" in done.err) == (1, True, False)


def test_what_airflow_logs_is_no_output(capfd: pytest.CaptureFixture[str]) -> None:
    with live.log_to_stderr():
        os.write(1, b"creating dag run\n")
    print("done")
    assert capfd.readouterr() == ("done\n", "creating dag run\n")


@pytest.mark.parametrize("how", [(), ("--break-glass",)])
def test_a_rollout_is_ended(scheduler: type[FakeScheduler], churn: Registry, run: Run, how: tuple[str, ...]) -> None:
    words = ("abort", "churn@challenger", "--reason", "odd scores", *how)
    churn.set_challenger(3, op_id="gates")
    assert "v3 is not rolling out: no version is" in run(*words).err
    churn.begin_rollout(3, expected=2, steps=["shadow", {"canary": 0.1}, "full"], op_id="b", reason="passed its gates")
    done = run(*words)
    assert "churn: v3 rolls out no more; the champion serves alone" in done.out
    assert churn.rollout() is None
    shown = run("show", "churn:3").out
    assert "begins shadow → canary 10 % → full: passed its gates" in " ".join(shown.split())
    assert "end at shadow by" in " ".join(shown.split())
    told = " ".join(run("history", "churn").out.split())
    assert "rollout begin v3 beside v2" in told
    assert "rollout end" in told
