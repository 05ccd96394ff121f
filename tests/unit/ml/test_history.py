"""Every alarm and every silent window has its reason."""

from __future__ import annotations

import itertools
import typing
from typing import Any

import pytest

from airflow_mlops.config.models import Retrain
from airflow_mlops.ml import drift, performance, skew, staleness, system_metrics
from airflow_mlops.ml.fleet.result import save_result
from airflow_mlops.ml.history import ALARMS, CALM, UNDECIDED, Period, history, told
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.ml.retrain_state import Checked
from airflow_mlops.registry.checks import write_check
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store.local import LocalStore
from airflow_mlops.window import Window

RETRAIN = Retrain(when=["drift", "performance"], cooldown="40d", confirm="2 of 3")


class Year:
    """What a pipeline writes, month by month, by the calls with which the operators record it."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store
        self.ledger, self.registry = Ledger(store, "churn"), Registry(store, "churn")
        self.ops = (f"op{n}" for n in itertools.count())

    def window(self, month: int) -> Window:
        return Window.of(f"2013-{month:02d}-01", f"2013-{month + 1:02d}-01")

    def check(self, month: int, rehearsal: bool = False, **results: Any) -> None:
        for name, result in results.items():
            write_check(self.store, "churn", self.window(month), name, result, rehearsal=rehearsal)

    def ask(self, month: int, *reasons: str, evidence: str | None = None, dry: bool = False) -> str | None:
        end = self.window(month).end
        checks = {name: Checked("v1", end) for name in reasons}
        return self.ledger.request(
            reasons,
            evidence=evidence or f"{month}",
            at=end,
            checks=checks,
            config=RETRAIN,
            op_id=next(self.ops),
            dry=dry,
        ).grant

    def claim(self, month: int, run: str, grant: str | None = None, start: str = "retrain") -> None:
        self.ledger.claim(grant, start=start, at=self.window(month).end, run=run, config=RETRAIN, op_id=next(self.ops))

    def train(self, run: str, verdict: str, sentence: str, promote: bool = False) -> int:
        number = self.registry.register({"snapshot": {}, "run": {"run_id": run}}, op_id=next(self.ops)).number
        note = {"verdict": verdict, "sentence": f"{verdict}: {sentence}"}
        self.registry.annotate(number, "gates", note, op_id=next(self.ops))
        if promote:
            champion = self.registry.champion()
            self.registry.promote(
                number, expected=champion.number if champion else None, op_id=next(self.ops), reason=sentence
            )
        return number

    def read(self) -> list[Period]:
        return history(self.store, "churn")


@pytest.fixture
def year(tmp_path: Any) -> Year:
    return Year(LocalStore(tmp_path))


DRIFT = {
    "verdict": "drift", "sentence": "drift in 4 of 9 columns: …",
    "columns": [{"name": name, "drifted": name != "calm"} for name in ("dew", "calm", "wind", "rain", "sun")],
}  # fmt: skip
STILL = {"verdict": "no_drift", "sentence": "no drift in 9 columns", "columns": [{"name": "dew", "drifted": False}]}
OK = {"verdict": "ok", "sentence": "…", "metric": "roc_auc", "value": 0.6412, "baseline": 0.652}
DROP = OK | {"verdict": "drop", "value": 0.6}
SCORED = {"rows": 100, "version": 1}


def test_a_year_in_words(year: Year) -> None:
    year.claim(1, "r1", start="initial")
    year.train("r1", "no_baseline", "there is no champion", promote=True)
    year.check(1, training={"go": True}, gates={"verdict": "no_baseline"})
    year.check(2, prediction=SCORED, drift=DRIFT, performance=OK, request={"granted": False})
    year.ask(2, "drift")
    year.check(3, prediction=SCORED, drift=DRIFT, performance=DROP)
    grant = year.ask(3, "drift", "performance")
    year.claim(3, "r3", grant)
    year.claim(3, "r3b", grant)
    year.train("r3", "rejected", "roc_auc 0.61 < 0.62.")
    year.check(4, prediction=SCORED, drift=STILL, performance={"verdict": "pending_labels", "sentence": "…"})
    year.check(5, prediction=SCORED, drift={"verdict": "not_enough_data", "sentence": "…"})
    year.check(6, prediction=SCORED)
    year.check(
        7,
        prediction=SCORED,
        quality={"verdict": "failed", "sentence": "3 of 9", "failed": ["expect_x on hour", "expect_y"]},
    )
    year.check(8, suppressed={"go": False})
    year.ask(8, "drift", dry=True)
    year.check(9, prediction=SCORED, rehearsal=True, drift=DRIFT)
    found = {one.window["end"][:7]: (one.seen, one.followed) for one in year.read()}
    assert found == {
        "2013-02": (
            "nothing was scored",
            "training: there is no champion yet: v1 no baseline (there is no champion), promoted",
        ),
        "2013-03": (
            "drift: dew, wind, rain and 1 more; performance ok, roc_auc 0.641",
            "drift suppressed: cool-down until 2013-03-13 (last training 2013-02-01); drift 1 of 2 confirmations",
        ),
        "2013-04": (
            "drift: dew, wind, rain and 1 more; performance drop, roc_auc 0.600 (at promotion 0.652)",
            f"granted because of drift. training because of drift ({grant}): v2 rejected (roc_auc 0.61 < 0.62). "
            f"no training: {grant} was already claimed by run r3",
        ),
        "2013-05": ("no drift; performance pending labels", "no alarm"),
        "2013-06": ("drift not enough data", "no alarm: the checks could not tell"),
        "2013-07": ("nothing was checked", "no alarm: no check ran"),
        "2013-08": ("quality failed: expect_x on hour, expect_y", "no training was asked for because of it"),
        "2013-09": ("nothing was scored", "nothing to check"),
    }


def test_a_grant_nobody_claimed_and_a_run_that_came_to_nothing(year: Year) -> None:
    year.check(2, prediction=SCORED, drift=DRIFT)
    year.ask(2, "drift")
    year.check(3, prediction=SCORED, drift=DRIFT)
    grant = year.ask(3, "drift")
    assert year.read()[1].followed == f"granted because of drift. no training of this window has claimed {grant}"
    year.claim(3, "r3", grant)
    assert year.read()[1].followed == (
        f"granted because of drift. training because of drift ({grant}): "
        "no version came of it, the run r3 failed or has not ended"
    )


def test_a_question_asked_again_is_one_question(year: Year) -> None:
    year.check(2, prediction=SCORED, drift=DRIFT)
    for _ in range(3):
        year.ask(2, "drift")
    (request,) = year.read()[0].requests
    assert (request.asked, request.granted, request.held) == (3, False, ["confirm"])
    assert year.read()[0].followed == "drift suppressed: drift 1 of 2 confirmations (asked 3 times)"


def test_what_only_the_ledger_knows_has_a_row(year: Year) -> None:
    year.check(3, prediction=SCORED, drift=STILL)
    year.claim(1, "m", start="manual")
    first, second = year.read()
    assert (first.window, first.seen) == (
        {"start": None, "end": "2013-02-01T00:00:00+00:00"}, "nothing was scored",
    )  # fmt: skip
    assert first.trainings[0].start == "manual"
    assert second.window["end"] == "2013-04-01T00:00:00+00:00"


def test_two_windows_with_one_end_share_no_row(year: Year) -> None:
    month, quarter = year.window(3), Window.of("2013-01-01", "2013-04-01")
    for window in (month, quarter):
        write_check(year.store, "churn", window, "drift", DRIFT)
    year.ask(3, "drift")
    rows = year.read()
    assert [len(one.requests) for one in rows] == [0, 1]
    assert rows[1].window == month.to_dict()


def test_an_unknown_verdict_is_an_alarm_and_everything_is_json(year: Year) -> None:
    import json

    year.check(2, prediction=SCORED, system={"verdict": "slow", "sentence": "…"})
    (one,) = year.read()
    assert [check.name for check in one.alarms] == ["system"]
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False)) == one.to_dict()


def test_every_verdict_of_a_check_is_an_alarm_or_calm_or_undecided() -> None:
    kinds = (drift.Verdict, skew.Verdict, performance.Verdict, staleness.Verdict, system_metrics.Verdict)
    verdicts = {verdict for kind in kinds for verdict in typing.get_args(kind)} | {"passed", "failed"}
    verdicts |= {"rejected", "inconclusive"}  # of a rollout
    assert len(verdicts) >= 14
    assert verdicts == {*ALARMS, *CALM, *UNDECIDED}
    assert len({*ALARMS, *CALM, *UNDECIDED}) == len(ALARMS) + len(CALM) + len(UNDECIDED)


def test_nothing_is_nothing(year: Year) -> None:
    assert year.read() == []


def test_a_rollout_stands_with_the_training_that_it_came_from(year: Year) -> None:
    year.claim(1, "r1", start="initial")
    year.train("r1", "no_baseline", "there is no champion", promote=True)
    for month, run in ((2, "r2"), (3, "r3"), (4, "r4")):
        year.claim(month, run, start="schedule")
        number = year.train(run, "passed", "better")
        year.registry.begin_rollout(
            number, expected=1, steps=["shadow", "full"], op_id=next(year.ops), reason="passed its gates"
        )
        if month == 2:
            year.registry.end_rollout(number, op_id=next(year.ops), reason="worse")
        if month == 3:
            year.registry.promote(
                number, expected=1, op_id=next(year.ops), reason="better", window=Window.of("2013-06-01", "2013-07-01")
            )
            year.registry.rollback(expected=number, op_id=next(year.ops), reason="for r4")
    told = [one.followed.rsplit(": ", 1)[1] for one in year.read()[1:]]
    assert told == [
        "v2 passed, rolled out, taken back",
        "v3 passed, rolled out, promoted with the window to 2013-07-01",
        "v4 passed, is rolling out",
    ]


def test_a_training_of_a_fleet_is_told_as_a_whole(year: Year) -> None:
    year.check(1, drift={"verdict": "no_drift", "sentence": "no drift in 3 keys"})
    year.claim(1, "scheduled__1", start="schedule")
    result = {
        "sentence": "2 promoted, 1 not due", "counts": {"promoted": 2, "not_due": 1}, "table": "0" * 64,
        "dag_id": "churn__train", "run_id": "scheduled__1", "started_at": "2013-02-01T00:00:00+00:00",
        "window": None, "keys": 3, "tests": 0, "limit": None, "rehearsal": False, "absent": {}, "rows": 9,
        "report": None,
    }  # fmt: skip
    save_result(year.store, "churn", "0" * 64, result)
    (period,) = history(year.store, "churn")
    assert period.followed == "training: by the schedule: 2 promoted, 1 not due"
    assert period.trainings[0].promoted


def test_a_check_of_a_fleet_tells_in_how_many_keys() -> None:
    worse = {"verdict": "drop", "metric": "mae", "value": 0.8, "baseline": 0.8, "keys": 15_544, "worse_keys": 19}
    assert told("performance", worse).text == "performance drop, mae in 19 of 15,544 keys"
    assert told("performance", worse | {"verdict": "ok", "worse_keys": 0}).text == "performance ok, mae 0.800"
    columns = [{"name": "x0", "drifted": True}, {"name": "x1", "drifted": False}]
    moved = {"verdict": "drift", "columns": columns, "keys": 12, "drifted_keys": 2}
    assert told("drift", moved).text == "drift: x0 in 2 of 12 keys"
    # What no key shows by itself, all show together.
    assert told("drift", moved | {"drifted_keys": 0}).text == "drift: x0"
