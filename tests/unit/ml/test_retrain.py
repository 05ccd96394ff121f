from __future__ import annotations

import itertools
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from airflow_mlops.config.models import Retrain
from airflow_mlops.exceptions import ObjectExists, ObjectNotFound, RegistryError
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.ml.retrain_state import Checked
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
    assert no.sentence == "suppressed: budget used up until 2013-07-01 (2 of 2 trainings by events in 2013-06)"
    assert no.held == ["budget"]
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


TWICE = Retrain(when=["drift", "performance"], confirm="2 of 3")


def check(ledger, n, *alarms, names=("drift",), about="v1", at=None, config=TWICE, **kw):
    """One monitoring run: a request where something alarmed, else a note; ``at`` is the day that was judged."""
    checks = {name: Checked(about, day(n if at is None else at)) for name in names}
    if alarms:
        return ask(ledger, n, f"{n}:{alarms}:{about}:{at}", alarms, config=config, checks=checks, **kw)
    ledger.note(checks, at=day(n), op_id=f"op{next(_op)}", **kw)
    return None


def test_an_alarm_asks_when_two_of_the_last_three_checks_raised_it(ledger):
    first = check(ledger, 0, "drift")
    assert (first.granted, first.held) == (False, ["confirm"])
    assert first.sentence == "suppressed: drift 1 of 2 confirmations"
    check(ledger, 1)
    second = check(ledger, 2, "drift")
    assert second.granted
    assert second.sentence == "granted: training because of drift, window until 2013-06-03"
    assert ledger.history()[-1]["confirmations"] == {"drift": 2}


def test_alarms_too_far_apart_do_not_confirm_each_other(ledger):
    for n in range(0, 30, 3):
        assert not check(ledger, n, "drift").granted
        check(ledger, n + 1)
        check(ledger, n + 2)


def test_the_same_window_twice_is_seen_once(ledger):
    assert not check(ledger, 0, "drift").granted
    # Another run, another question about the same window: as after a cleared task or a doubled event.
    again = ask(ledger, 0, "other", config=TWICE, checks={"drift": Checked("v1", day(0))})
    assert again.sentence == "suppressed: drift 1 of 2 confirmations"
    # Labels that came late: two runs judged one window.
    assert not check(ledger, 1, "performance", names=["performance"], at=0).granted
    assert not check(ledger, 2, "performance", names=["performance"], at=0).granted
    assert check(ledger, 3, "performance", names=["performance"], at=1).granted


def test_a_check_that_was_run_again_has_its_newest_result(ledger):
    assert not check(ledger, 0, "drift").granted
    check(ledger, 0)
    assert not check(ledger, 1, "drift").granted


def test_each_check_is_confirmed_by_itself(ledger):
    both = ("drift", "performance")
    assert not check(ledger, 0, "drift", names=both).granted
    no = check(ledger, 1, "performance", names=both)
    assert no.sentence == "suppressed: performance 1 of 2 confirmations"
    yes = check(ledger, 2, "drift", names=both)
    assert yes.reasons == ["drift"]
    assert take(ledger, yes.grant, 2, config=TWICE).reasons == ["drift"]
    # One is confirmed, the other not: training is because of the one.
    mixed = check(Ledger(ledger._log._store, "other"), 0, *both, names=both)
    assert mixed.sentence == "suppressed: drift 1 of 2 confirmations; performance 1 of 2 confirmations"


def test_an_unconfirmed_alarm_beside_a_confirmed_one_is_no_reason(ledger):
    both = ("drift", "performance")
    check(ledger, 0, "drift", names=both)
    yes = check(ledger, 1, *both, names=both)
    assert (yes.granted, yes.reasons) == (True, ["drift"])
    assert ledger.history()[-1]["confirmations"] == {"drift": 2, "performance": 1}


def test_alarms_about_another_champion_do_not_count(ledger):
    assert not check(ledger, 0, "drift", about="v1").granted
    assert not check(ledger, 1, "drift", about="v2").granted
    assert check(ledger, 2, "drift", about="v2").granted


def columns(ledger, n, *names):
    return ask(ledger, n, config=TWICE, checks={"drift": Checked("v1", day(n), names)})


def test_one_column_must_drift_again(ledger):
    assert not columns(ledger, 0, "wind", "rain").granted
    assert columns(ledger, 1, "humidity").sentence == "suppressed: drift 1 of 2 confirmations"
    assert columns(ledger, 2, "dew", "rain").granted


def test_a_late_check_of_an_earlier_window_counts_in_its_place(ledger):
    assert not check(ledger, 5, "drift").granted
    check(ledger, 6)
    check(ledger, 7)
    assert not check(ledger, 2, "drift").granted  # what came after it is not yet known to it
    assert check(ledger, 4, "drift").granted
    check(ledger, 3)


def test_rehearsals_confirm_only_each_other(ledger):
    assert not check(ledger, 0, "drift", dry=True).granted
    assert not check(ledger, 1, "drift").granted
    assert check(ledger, 1, "drift", dry=True).granted
    assert check(ledger, 2, "drift").granted


def test_every_reason_why_not_is_told_with_its_date(ledger):
    config = Retrain(when=["drift"], confirm="2 of 3", cooldown="7d", max_per_month=1)
    check(ledger, 0, "drift", config=config)
    grant = check(ledger, 1, "drift", config=config).grant
    waits = check(ledger, 2, "drift", config=config)
    assert waits.sentence == f"suppressed: {grant} of 2013-06-02 still waits for its training"
    assert take(ledger, grant, 3, config=config).go
    no = check(ledger, 5, "drift", about="v2", config=config)
    assert no.held == ["cooldown", "budget", "confirm"]
    assert no.sentence == (
        "suppressed: cool-down until 2013-06-11 (last training 2013-06-04); budget used up until 2013-07-01 "
        "(1 of 1 trainings by events in 2013-06); drift 1 of 2 confirmations"
    )


def test_new_data_needs_no_confirmation(ledger):
    config = Retrain(when=["new_data", "drift"], confirm="3 of 3")
    assert take(ledger, None, 0, start="new_data", evidence="d", config=config).go


def test_the_budget_ends_with_the_year(ledger):
    config = Retrain(when=["drift"], max_per_month=1)
    assert take(ledger, ask(ledger, 200, config=config).grant, 200, config=config).go
    assert "until 2014-01-01" in ask(ledger, 205, config=config).sentence


def test_a_grant_whose_event_was_lost_is_found_by_the_next_check(ledger):
    grant = ask(ledger, 0).grant
    assert ledger.waiting(day(0)) is None  # its own run sends it
    assert ledger.waiting(day(1)).id == grant
    assert take(ledger, grant, 1, run="a").go
    assert ledger.waiting(day(2)) is None
    assert not take(ledger, grant, 1, run="b").go  # the event that was sent again


def test_notes_are_no_requests(ledger):
    check(ledger, 0)
    assert ledger.history() == []


def test_many_writers_claim_one_grant(tmp_path):
    grant = ask(Ledger(LocalStore(tmp_path), "p"), 0).grant
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda i: take(Ledger(LocalStore(tmp_path), "p"), grant, 0, run=f"r{i}"), range(8)))
    assert sum(c.go for c in claims) == 1


_SCHEDULER = """
import sys, time
from datetime import UTC, datetime, timedelta
from airflow_mlops.config.models import Retrain
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.ml.retrain_state import Checked
from airflow_mlops.store.local import LocalStore
folder, name, start = sys.argv[1], sys.argv[2], float(sys.argv[3])
ledger = Ledger(LocalStore(folder), "p")
config = Retrain(when=["drift"], confirm="2 of 3", cooldown="7d")
print(flush=True)
time.sleep(max(0.0, start - time.time()))
for n in range(4):
    at = datetime(2013, 6, 1, tzinfo=UTC) + timedelta(days=n)
    asked = ledger.request(["drift"], evidence=f"window {n}", at=at, config=config, op_id=f"{name} ask {n}")
    for event in range(2):  # each event comes twice
        if asked.grant:
            claim = ledger.claim(
                asked.grant, start="retrain", at=at, run=f"{name}-{n}-{event}", config=config,
                op_id=f"{name} claim {n} {event}",
            )
            print("go" if claim.go else "no", flush=True)
"""


def test_two_schedulers_and_doubled_events_train_once(tmp_path):
    """Real processes see the same four alarms and ask at the same moment; each event comes twice."""
    start = time.time() + 4
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _SCHEDULER, str(tmp_path), f"scheduler{n}", str(start)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(words.count("go") for words in said) == 1
    assert sum(len(words) for words in said) == 6  # all three were told of the one grant
    rows = Ledger(LocalStore(tmp_path), "p").history()
    assert len({row["grant"] for row in rows if row["step"] == "request" and row["yes"]}) == 1
    assert sum(row["step"] == "request" and not row["repeats"] for row in rows) == 4


class MemoryStore(LocalStore):
    """As far as a log uses it, in a dict: a state machine asks thousands of times."""

    def __init__(self):
        self.uri, self.objects = "file:///memory", {}

    def get(self, key):
        if key not in self.objects:
            raise ObjectNotFound(key)
        return self.objects[key]

    def put(self, key, data):
        self.objects[key] = data

    def put_if_absent(self, key, data):
        if key in self.objects:
            raise ObjectExists(key)
        self.objects[key] = data


days = st.one_of(st.integers(0, 12), st.integers(27, 36))


class _Machine(RuleBasedStateMachine):
    """Any order of requests, claims, duplicates and rehearsals; times in days, forwards and backwards."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger(MemoryStore(), "p")
        self.grants = []
        self.answers = {}

    @rule(n=days, evidence=st.integers(0, 12), dry=st.booleans())
    def request(self, n, evidence, dry):
        decision = ask(self.ledger, n, f"e{evidence}", dry=dry)
        assert self.answers.setdefault((evidence, dry), decision) == decision
        assert bool(decision.held) != decision.granted
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


class _Events(RuleBasedStateMachine):
    """Checks of any window in any order and again, under k of n; events that are lost, doubled and late.

    The model keeps what each check found last, by window, and counts by itself.
    """

    config = Retrain(when=["drift"], confirm="2 of 3", cooldown="2d")

    def __init__(self):
        super().__init__()
        self.ledger = Ledger(MemoryStore(), "p")
        self.found = {}
        self.asked = set()
        self.grants = {}
        self.events = []
        self.went = []
        self.runs = itertools.count()

    @rule(
        n=st.integers(0, 14), alarm=st.booleans(), about=st.sampled_from(["v1", "v1", "v1", "v2"]), lost=st.booleans()
    )
    def check(self, n, alarm, about, lost):
        decision = check(self.ledger, n, *(["drift"] if alarm else []), about=about, config=self.config)
        again = (n, about) in self.asked
        self.found[n] = (alarm, about)
        if decision is None:
            return
        self.asked.add((n, about))
        last = sorted((d for d in self.found if d <= n), reverse=True)[:3]
        count = sum(self.found[d] == (True, about) for d in last)
        if not again:
            assert ("confirm" in decision.held) == (count < 2)
            assert decision.granted <= (count >= 2)
        if decision.granted:
            self.grants.setdefault(decision.grant, n)
            if not lost:
                self.events.append((decision.grant, n))

    @rule(n=st.integers(0, 14))
    def remind(self, n):
        if waiting := self.ledger.waiting(day(n)):
            self.events.append((waiting.id, n))

    @rule(pick=st.integers(0, 30), twice=st.booleans())
    def deliver(self, pick, twice):
        if self.events:
            grant, n = self.events[pick % len(self.events)]
            for _ in range(1 + twice):
                run = f"r{next(self.runs)}"
                if take(self.ledger, grant, n, run=run, config=self.config).go:
                    self.went.append(grant)

    @invariant()
    def a_grant_trains_once(self):
        assert len(self.went) == len(set(self.went))

    def teardown(self):
        # However many events were lost: what the next check sends again leaves no grant without an end.
        if waiting := self.ledger.waiting(day(40)):
            assert take(self.ledger, waiting.id, 40, run="last", config=self.config).go
            self.went.append(waiting.id)
        state = self.ledger._log.state()
        assert not any(g.open for g in state.grants.values())
        assert all((grant in self.went) != (state.grants[grant].closed is not None) for grant in self.grants)
        self.a_grant_trains_once()


TestEventsMachine = _Events.TestCase
TestEventsMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
