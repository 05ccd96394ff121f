from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from airflow_mlops.config.models import Retrain
from airflow_mlops.exceptions import RegistryError
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.store.local import LocalStore

CONFIG = Retrain(when=["drift"], cooldown="7d", max_per_month=2)
_op = itertools.count()


def day(n):
    return datetime(2013, 6, 1, tzinfo=UTC) + timedelta(days=n)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(LocalStore(tmp_path), "flights")


def ask(ledger, n, evidence=None, reasons=("drift",), config=CONFIG, **kw):
    op = f"op{next(_op)}"
    return ledger.request(reasons, evidence=evidence or op, at=day(n), config=config, op_id=op, **kw)


def take(ledger, grant, n, run="r1", start="retrain", config=CONFIG, op=None, **kw):
    return ledger.claim(grant, start=start, at=day(n), run=run, config=config, op_id=op or f"op{next(_op)}", **kw)


def trained(ledger):
    return [h for h in ledger.history() if h["step"] == "claim" and h["yes"] and not h["dry"] and not h["repeats"]]


def test_a_grant_trains_once_however_often_it_is_claimed(ledger):
    decision = ask(ledger, 0)
    assert decision.granted
    assert decision.sentence == "granted: training because of drift, window until 2013-06-01"
    assert take(ledger, decision.grant, 0, run="a", op="x").go
    assert take(ledger, decision.grant, 0, run="a", op="x").go
    assert take(ledger, decision.grant, 0, run="a", op="y").go
    refused = take(ledger, decision.grant, 0, run="b")
    assert not refused.go
    assert refused.sentence.endswith("was already claimed by run a")
    assert len(trained(ledger)) == 1


def test_the_same_evidence_gets_the_same_answer(ledger):
    first = ask(ledger, 0, "e")
    assert ask(ledger, 0, "e") == first
    assert take(ledger, first.grant, 0).go
    assert ask(ledger, 0, "e") == first
    no = ask(ledger, 3, "f")
    assert not no.granted
    assert ask(ledger, 30, "f") == no


def test_cooldown_counts_in_window_time_and_says_until_when(ledger):
    assert take(ledger, None, 0, start="schedule", run="s").go
    no = ask(ledger, 6)
    assert no.sentence == "suppressed: cool-down until 2013-06-08 (last training 2013-06-01)"
    assert ask(ledger, 7).granted


def test_time_may_go_backwards(ledger):
    assert take(ledger, None, 100, start="schedule", run="live").go
    decision = ask(ledger, 0)
    assert decision.granted
    assert take(ledger, decision.grant, 0, run="replay").go
    assert not ask(ledger, 101).granted


def test_one_open_grant_and_a_lost_event(ledger):
    first = ask(ledger, 0)
    waiting = ask(ledger, 3)
    assert waiting.sentence == f"suppressed: {first.grant} of 2013-06-01 still waits for its training"
    second = ask(ledger, 8)
    assert second.granted
    late = take(ledger, first.grant, 0, run="late")
    assert not late.go
    assert "took its place" in late.sentence
    assert take(ledger, second.grant, 8, run="b").go


def test_the_budget_of_a_month(ledger):
    config = Retrain(when=["drift"], max_per_month=2)
    for n in (0, 5):
        assert take(ledger, ask(ledger, n, config=config).grant, n, run=f"r{n}", config=config).go
    assert take(ledger, None, 8, start="manual", run="m", config=config).go
    no = ask(ledger, 9, config=config)
    assert no.sentence == "suppressed: 2 of 2 trainings by events in 2013-06 are used"
    assert ask(ledger, 30, config=config).granted


def test_a_schedule_closes_the_waiting_grant(ledger):
    decision = ask(ledger, 0)
    assert take(ledger, None, 0, start="schedule", run="s").go
    claim = take(ledger, decision.grant, 0, run="r")
    assert not claim.go
    assert "run s trained (schedule)" in claim.sentence


def test_a_grant_is_checked_again_when_claimed(ledger):
    decision = ask(ledger, 3)
    assert take(ledger, None, 0, start="schedule", run="s").go
    claim = take(ledger, decision.grant, 3, run="r")
    assert not claim.go
    assert claim.sentence.startswith("suppressed: cool-down until 2013-06-08")
    assert ask(ledger, 9).granted


def test_new_data_asks_and_claims(ledger):
    assert take(ledger, None, 0, start="new_data", run="a", op="1", evidence="d1").go
    assert take(ledger, None, 0, start="new_data", run="a", op="1", evidence="d1").go
    again = take(ledger, None, 0, start="new_data", run="b", evidence="d1")
    assert "already claimed by run a" in again.sentence
    early = take(ledger, None, 2, start="new_data", run="c", evidence="d2")
    assert not early.go
    assert early.reasons == ["new_data"]
    assert len(trained(ledger)) == 1


def test_a_rehearsal_spends_nothing(ledger):
    dry = ask(ledger, 0, "e", dry=True)
    assert dry.granted
    assert take(ledger, dry.grant, 0, run="d", dry=True).go
    assert not take(ledger, dry.grant, 0, run="d2", dry=True).go
    assert take(ledger, None, 1, start="schedule", run="d3", dry=True).go
    assert trained(ledger) == []
    live = ask(ledger, 2, "e")
    assert live.granted
    assert live.grant != dry.grant
    assert not take(ledger, live.grant, 2, run="d4", dry=True).go
    assert take(ledger, live.grant, 2, run="l").go


def test_nothing_asks_nothing_granted_and_wrong_use(ledger):
    assert not ask(ledger, 0, reasons=()).granted
    assert "carries no grant" in take(ledger, None, 0).sentence
    assert "not in the retrain ledger of flights" in take(ledger, "grant-x", 0).sentence
    with pytest.raises(RegistryError, match="no way to start"):
        take(ledger, None, 0, start="magic")


def test_history_is_a_table(ledger):
    ask(ledger, 0, "e")
    ask(ledger, 0, "e")
    rows = ledger.history()
    assert [r["repeats"] for r in rows] == [False, True]
    assert rows[0]["at"] == "2013-06-01T00:00:00+00:00"
    assert rows[0]["reasons"] == ["drift"]


def test_many_processes_claim_one_grant(tmp_path):
    grant = ask(Ledger(LocalStore(tmp_path), "p"), 0).grant
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda i: take(Ledger(LocalStore(tmp_path), "p"), grant, 0, run=f"r{i}"), range(8)))
    assert sum(c.go for c in claims) == 1


days = st.one_of(st.integers(0, 12), st.integers(27, 36))


class _Machine(RuleBasedStateMachine):
    """Any order of requests, claims, duplicates and rehearsals; times in days, forwards and backwards."""

    def __init__(self):
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(LocalStore(self.folder.name), "p")
        self.grants = []
        self.answers = {}

    def teardown(self):
        self.folder.cleanup()

    @rule(n=days, evidence=st.integers(0, 12), dry=st.booleans())
    def request(self, n, evidence, dry):
        decision = ask(self.ledger, n, f"e{evidence}", dry=dry)
        assert self.answers.setdefault((evidence, dry), decision) == decision
        if decision.grant:
            self.grants.append((decision.grant, n, dry))

    @rule(pick=st.integers(0, 5), run=st.integers(0, 20), shift=st.sampled_from([0, 0, 0, 1, -5]))
    def claim(self, pick, run, shift):
        if self.grants:
            grant, n, dry = self.grants[-1 - pick % len(self.grants)]
            take(self.ledger, grant, n + shift, run=f"r{run}", dry=dry)

    @rule(n=days, run=st.integers(21, 40), start=st.sampled_from(["schedule", "manual", "new_data"]))
    def other(self, n, run, start):
        take(self.ledger, None, n, run=f"r{run}", start=start, evidence=f"d{n}")

    @invariant()
    def rules_hold(self):
        done, used, claimed = [], {}, set()
        for row in trained(self.ledger):
            at = datetime.fromisoformat(row["at"])
            if row["start"] in ("retrain", "new_data"):
                assert all(at - t >= timedelta(days=7) for t in done if t <= at)
                used[at.year, at.month] = used.get((at.year, at.month), 0) + 1
                assert row["grant"] not in claimed
                claimed.add(row["grant"])
            done.append(at)
        assert all(n <= 2 for n in used.values())
        state = self.ledger._log.state()
        assert sum(g.open and not g.dry for g in state.grants.values()) <= 1


TestLedgerMachine = _Machine.TestCase
TestLedgerMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
