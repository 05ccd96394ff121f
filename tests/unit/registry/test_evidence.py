from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import PipelineConfig, Retrain
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.registry import Registry
from airflow_mlops.registry.checks import all_checks, read_check, read_checks, write_check
from airflow_mlops.registry.evidence import Assessment, assess
from airflow_mlops.registry.records import stored_pipelines
from airflow_mlops.store import LocalStore, layout
from airflow_mlops.window import Window

RETRAIN = Retrain(when=["drift", "new_data"], cooldown="7d")
BASE: dict[str, Any] = {
    "pipeline": "churn",
    "level": 0,
    "data": {"source": "a.csv", "target": "y"},
    "train": {"estimator": "sklearn.linear_model.LogisticRegression"},
    "evaluate": {"gates": [{"metric": "roc_auc", "at_least": 0.6}]},
}
LEVEL_1 = BASE | {"level": 1, "retrain": {"when": ["drift"]}, "monitor": {}}


class Life:
    """What a pipeline does, by the calls with which the operators record it."""

    def __init__(self, folder: Path) -> None:
        self.store = LocalStore(folder)
        self.registry = Registry(self.store, "churn")
        self.ledger = Ledger(self.store, "churn")
        self.number = itertools.count(1)

    def op(self) -> str:
        return f"op{next(self.number)}"

    def window(self) -> Window:
        start = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=30 * next(self.number))
        return Window.of(start, start + timedelta(days=30))

    def train(self, run: str = "manual__1", *, rehearsal: bool = False, replay: str | None = None, **more: Any) -> int:
        record = {
            "snapshot": {"fingerprint": "f", "validation": {"sentence": "ok"}},
            "run": {"dag_id": "churn__train", "run_id": run, "replay": replay, "rehearsal": rehearsal},
        }
        return self.registry.register(record | more, op_id=self.op()).number

    def started(self, start: str, reasons: tuple[str, ...] = (), run: str = "", **how: Any) -> int | None:
        """Ask, claim and train, as the first task of the training DAG does."""
        run, at, dry = run or f"asset_triggered__{self.op()}", self.window().end, how.get("rehearsal", False)
        grant = None
        if start == "retrain":
            asked = self.ledger.request(reasons, evidence=run, at=at, config=RETRAIN, op_id=self.op(), dry=dry)
            grant = asked.grant
        claim = self.ledger.claim(grant, start=start, at=at, run=run, config=RETRAIN, op_id=self.op(), dry=dry)
        return self.train(run, **how) if claim.go else None

    def judge(self, version: int, verdict: str = "passed", *lines: str) -> None:
        results = [{"verdict": line} for line in lines or (verdict,)]
        note = {"verdict": verdict, "go": verdict in ("passed", "no_baseline"), "results": results}
        self.registry.annotate(version, "gates", note, op_id=self.op())

    def approve(self, version: int, by: str | None = "ann", answer: str = "Approve") -> None:
        self.registry.annotate(version, "approval", {"by": by, "answer": [answer]}, op_id=self.op())

    def promote(self, version: int, by: str | None = None) -> None:
        champion = self.registry.champion()
        expected = champion.number if champion else None
        self.registry.promote(version, expected=expected, op_id=self.op(), reason="better", by=by)

    def hand_over(self, version: int) -> None:
        self.registry.annotate(version, "handover", {"bundle": "b"}, op_id=self.op())

    def check(self, name: str, verdict: str = "", **origin: Any) -> None:
        write_check(self.store, "churn", self.window(), name, {"verdict": verdict}, **origin)

    def by_hand(self) -> None:
        """All of level 0."""
        version = self.train()
        self.judge(version)
        self.approve(version)
        self.promote(version, by="ann")
        self.hand_over(version)
        self.check("prediction", start="manual")

    def by_itself(self) -> None:
        """All of level 1."""
        version = self.started("retrain", ("drift",))
        assert version is not None
        self.judge(version)
        self.promote(version)
        self.check("prediction", start="schedule")
        self.check("drift", "no_drift", start="event")

    def assess(self, config: dict[str, Any] | None = None, later: int = 0, days: int = 90) -> Assessment:
        parsed = PipelineConfig.model_validate(config) if config else None
        return assess(self.store, "churn", parsed, datetime.now(UTC) + timedelta(days=later), days)

    def text(self, name: str, config: dict[str, Any] | None = None) -> str:
        return next(str(s) for s in self.assess(config).states if s.capability.name == name)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


TODAY = datetime.now(UTC).strftime("exercised on %Y-%m-")


def test_an_empty_store_has_no_level(life: Life) -> None:
    for config in (None, BASE, LEVEL_1):
        found = life.assess(config)
        assert (found.level, found.terms, found.last) == (None, {}, None)
        assert not any(s.used or s.recent for s in found.states)
        assert 1 <= len(found.next) <= 3
        assert found.next[0].startswith("start churn__train (never exercised: training on a snapshot, validated data")
    assert stored_pipelines(life.store) == []


def test_nothing_counts_because_it_is_written_in_a_file(life: Life) -> None:
    assert life.text("drift checked") == "never exercised"
    assert life.text("drift checked", BASE) == "absent"
    assert life.text("drift checked", LEVEL_1) == "configured, never exercised"
    assert life.text("shadow and canary", LEVEL_1) == "absent"
    assert life.text("shadow and canary", LEVEL_1 | {"level": 2}) == "configured, never exercised"
    life.check("drift", "no_drift")
    assert life.text("drift checked", BASE).startswith(TODAY)


def test_a_life_by_hand_is_level_0_in_three_vocabularies(life: Life) -> None:
    life.by_hand()
    found = life.assess(BASE)
    assert found.level == 0
    assert found.terms["google"] == "0 manual process"
    assert found.terms["aws"] == "initial"
    assert found.next[0].startswith("make churn level 1: `airflow mlops plan FILE --level 1`")
    assert found.missing(1) == [
        "automatic start of training", "promotion by gates", "automatic batch inference", "monitoring",
    ]  # fmt: skip
    assert stored_pipelines(life.store) == ["churn"]


@pytest.mark.parametrize("left_out", ["judge", "approve", "hand_over", "check", "train"])
def test_level_0_needs_each_of_its_parts(life: Life, monkeypatch: pytest.MonkeyPatch, left_out: str) -> None:
    if left_out == "train":
        monkeypatch.setattr(
            Life, "train", lambda self: self.registry.register({"snapshot": {}}, op_id=self.op()).number
        )
    else:
        monkeypatch.setattr(Life, left_out, lambda *args, **more: None)
    life.by_hand()
    assert life.assess().level is None


@pytest.mark.parametrize("left_out", ["started", "judge", "promote", "check"])
def test_level_1_needs_each_of_its_parts(life: Life, monkeypatch: pytest.MonkeyPatch, left_out: str) -> None:
    life.by_hand()
    if left_out == "started":
        monkeypatch.setattr(Life, left_out, lambda self, *args: self.train())
    else:
        monkeypatch.setattr(Life, left_out, lambda *args, **more: None)
    life.by_itself()
    assert life.assess().level == 0


def test_a_life_by_itself_is_level_1_without_anybodys_approval(life: Life) -> None:
    life.by_itself()
    found = life.assess(LEVEL_1)
    assert found.level == 1
    assert found.terms["microsoft"] == "2 Automated training"
    assert life.text("a person approves", LEVEL_1) == "absent"
    assert any("thresholds in `evaluate.gates`" in step for step in found.next)
    json.dumps(found.to_dict(), allow_nan=False)


def test_level_1_stands_on_what_level_0_needs(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    train = Life.train
    monkeypatch.setattr(Life, "train", lambda *args, **more: train(*args, **more, snapshot={"fingerprint": "f"}))
    life.by_itself()
    found = life.assess()
    assert (found.level, found.missing(0), found.missing(1)) == (None, ["validated data"], [])


def test_what_is_old_is_shown_and_reaches_nothing(life: Life) -> None:
    life.by_itself()
    assert life.assess(later=91).level is None
    assert life.assess(later=91, days=100).level == 1
    old = life.assess(LEVEL_1, later=91)
    assert str(next(s for s in old.states if s.capability.name == "drift checked")).startswith(TODAY)
    assert "not in the last 90 days: training on a snapshot" in old.next[0]


@pytest.mark.parametrize(
    ("start", "reasons", "name"),
    [
        ("schedule", (), "training started by its schedule"),
        ("new_data", (), "training started by new data"),
        ("retrain", ("drift",), "training started by drift"),
        ("retrain", ("drift", "performance"), "training started by performance"),
        ("retrain", ("staleness",), "training started by staleness"),
    ],
)
def test_what_starts_a_training_is_told_apart(life: Life, start: str, reasons: tuple[str, ...], name: str) -> None:
    assert life.started(start, reasons)
    exercised = {s.capability.name for s in life.assess().states if s.recent and "started by" in s.capability.name}
    assert name in exercised
    assert len(exercised) == max(1, len(reasons))


def test_a_start_counts_when_a_model_came_of_it_and_no_person_typed_it(life: Life) -> None:
    life.ledger.claim(None, start="schedule", at=life.window().end, run="scheduled__1", config=RETRAIN, op_id="x")
    assert life.text("training started by its schedule") == "never exercised"
    assert life.started("schedule", run="manual__2013-01-01")
    assert life.text("training started by its schedule") == "never exercised"
    assert life.started("manual", run="manual__2")
    assert life.started("initial", run="replay__x")
    assert not life.assess().states[6].used
    life.train("scheduled__1")
    assert life.text("training started by its schedule").startswith(TODAY)


def test_rehearsals_do_not_count(life: Life) -> None:
    version = life.started("retrain", ("drift",), rehearsal=True)
    assert version is not None
    life.judge(version)
    life.judge(version, "rejected")
    life.check("prediction", start="schedule", rehearsal=True)
    life.check("drift", "drift", rehearsal=True)
    assert not any(s.used for s in life.assess().states)


def test_a_replay_that_promotes_counts_and_is_marked(life: Life) -> None:
    assert life.started("new_data", replay="year")
    life.check("prediction", start="manual", replay="year")
    for name in ("training started by new data", "batch inference without a person"):
        assert life.text(name).endswith(" in a replay")
    life.check("prediction", start="schedule")
    assert life.text("batch inference without a person").startswith(TODAY)
    assert not life.text("batch inference without a person").endswith("in a replay")


def test_what_only_a_replay_did_is_recommended_for_the_file(life: Life) -> None:
    version = life.started("retrain", ("drift",), replay="year")
    life.judge(version or 0)
    life.judge(version or 0, "inconclusive")
    life.promote(version or 0)
    life.check("prediction", start="manual", replay="year")
    life.check("drift", "drift", replay="year")
    found = life.assess(LEVEL_1)
    assert found.level == 1
    assert "add `deploy.batch.schedule` to the file (only in a replay: batch inference without a person)" in found.next


def test_a_promotion_by_gates_is_one_that_nobody_was_asked_about(life: Life) -> None:
    name = "promotion by gates alone"
    for verdict, lines, by in [
        ("passed", (), "ann"),
        ("rejected", (), None),
        ("no_baseline", ("no_baseline",), None),
    ]:
        version = life.train()
        life.judge(version, verdict, *lines)
        if by:
            life.approve(version, by)
        life.promote(version, by)
        assert life.text(name) == "never exercised"
    timed_out = life.train()
    life.judge(timed_out)
    life.approve(timed_out, by=None)
    life.promote(timed_out)
    assert life.text(name) == "never exercised"
    first = life.train()
    life.judge(first, "no_baseline", "passed", "no_baseline")
    life.promote(first)
    assert life.text(name).startswith(TODAY)


def test_an_approval_by_time_out_is_no_persons(life: Life) -> None:
    life.approve(life.train(), by=None)
    assert life.text("a person approves") == "never exercised"


def test_a_no_is_no_approval(life: Life) -> None:
    refused = life.train()
    life.judge(refused)
    life.approve(refused, answer="Reject")
    assert life.text("a person approves") == "never exercised"
    # By hand, later: that is a promotion after a no, and the no did not make it one with approval.
    life.promote(refused)
    assert life.text("promotion by gates and a person") == "never exercised"


def test_checks_that_could_not_judge_do_not_count(life: Life) -> None:
    life.check("drift", "not_enough_data")
    life.check("performance", "pending_labels")
    life.check("performance", "not_enough_data")
    assert not any(s.used for s in life.assess().states)


def test_grants_refusals_and_rollback(life: Life) -> None:
    at = life.window().end
    assert life.ledger.request(["drift"], evidence="a", at=at, config=RETRAIN, op_id="a").granted
    assert life.text("retrain granted").startswith(TODAY)
    assert life.text("retrain held back") == "never exercised"
    assert not life.ledger.request(["drift"], evidence="b", at=at, config=RETRAIN, op_id="b").granted
    assert life.text("retrain held back").startswith(TODAY)
    first, second = life.train(), life.train()
    for version in (first, second):
        life.promote(version)
    assert life.text("rollback to an earlier champion") == "never exercised"
    life.promote(first)
    assert life.text("rollback to an earlier champion").startswith(TODAY)


def test_a_prediction_without_a_window_is_noted_on_its_version(life: Life) -> None:
    life.registry.annotate(life.train(), "prediction", {"rows": 3, "start": "manual"}, op_id="p")
    assert life.text("batch inference").startswith(TODAY)
    assert life.text("batch inference without a person") == "never exercised"


def test_a_check_without_its_time_is_on_an_unknown_date_and_not_recent(life: Life) -> None:
    window = life.window()
    key = layout.check("churn", window.key, "drift")
    life.store.put(key, json.dumps({"window": window.to_dict(), "result": {"verdict": "drift"}}).encode())
    assert life.text("drift checked") == "exercised on an unknown date"
    (state,) = (s for s in life.assess().states if s.capability.name == "drift checked")
    assert not state.recent
    life.check("drift", "drift")
    assert life.text("drift checked").startswith(TODAY)


def test_a_check_says_when_and_by_what_it_was_written(life: Life) -> None:
    window = life.window()
    before = datetime.now(UTC) - timedelta(seconds=1)
    write_check(life.store, "churn", window, "drift", {"verdict": "drift"}, start="event", replay="year")
    (check,) = all_checks(life.store, "churn")
    assert (check.name, check.result, check.start, check.replay) == ("drift", {"verdict": "drift"}, "event", "year")
    assert before <= datetime.fromisoformat(check.at or "") <= datetime.now(UTC)
    expected = {"window": window.to_dict(), "drift": {"verdict": "drift"}}
    assert read_check(life.store, "churn", "drift") == expected
    assert read_checks(life.store, "churn") == [expected]


EVENTS: list[Callable[[Life], Any]] = [
    Life.by_hand,
    Life.by_itself,
    lambda life: life.train(),
    lambda life: life.train(rehearsal=True),
    lambda life: life.started("schedule"),
    lambda life: life.started("new_data"),
    lambda life: life.started("retrain", ("performance",)),
    lambda life: life.judge(1, "rejected"),
    lambda life: life.judge(1),
    lambda life: life.approve(1),
    lambda life: life.promote(1),
    lambda life: life.hand_over(1),
    lambda life: life.check("prediction", start="schedule"),
    lambda life: life.check("performance", "ok"),
    lambda life: life.check("performance", "pending_labels"),
]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=10), st.sampled_from([None, BASE, LEVEL_1]))
def test_more_records_never_lower_the_level(events: list[Callable[[Life], Any]], config: dict[str, Any] | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder))
        assert life.assess(config).level is None
        life.train()
        before = -1
        for event in events:
            event(life)
            found = life.assess(config)
            level = -1 if found.level is None else found.level
            assert level >= before
            assert all(found.missing(n) == [] for n in range(level + 1))
            assert len(found.next) <= 3
            before = level


def test_level_2_needs_a_rollout_and_a_delivery(life: Life) -> None:
    life.by_hand()
    life.by_itself()
    champion = life.registry.champion()
    assert champion is not None
    number = life.train(code={"delivered": {"project": "p", "bundle": "b", "deployment": "d", "commit": "c"}})
    life.registry.begin_rollout(number, expected=champion.number, steps=["shadow", "full"], op_id=life.op(), reason="x")
    config = LEVEL_1 | {"level": 2}
    found = life.assess(config)
    assert (found.level, found.missing(2)) == (1, ["progressive delivery"])
    rollout = life.registry.rollout()
    assert rollout is not None
    life.registry.judge_rollout(rollout, "next", look=1, spent=0.2, op_id=life.op(), reason="better")
    assert life.assess(config).level == 2
    assert life.text("automatic rollback", config) == "configured, never exercised"
    again = life.train()
    life.registry.begin_rollout(again, expected=number, steps=["shadow", "full"], op_id=life.op(), reason="x")
    rollout = life.registry.rollout()
    assert rollout is not None
    life.registry.judge_rollout(rollout, "end", look=1, spent=0.2, op_id=life.op(), reason="worse")
    assert life.text("automatic rollback", config).startswith(TODAY)
