from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Gate
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.gate_report import gate_report_html
from airflow_mlops.ml.gates import decide
from airflow_mlops.ml.wear import Wear, claim_use, holdout_id, share_of, spends
from airflow_mlops.store import LocalStore

H = holdout_id("f" * 64, np.array([True, False, True]))


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def claim(store, candidate, champion=1, limit=20, holdout=H):
    return claim_use(store, "p", holdout, candidate=candidate, champion=champion, limit=limit)


def test_each_decision_counts_once(store):
    assert [claim(store, c).use for c in ("a", "b", "c")] == [1, 2, 3]
    again = claim(store, "b")
    assert (again.use, again.share) == (2, share_of(2, 20))
    assert claim(store, "b", champion=2).use == 4
    assert claim(store, "a", holdout="0" * 64).use == 1


def test_other_rows_are_another_holdout():
    rows = np.array([True, False, True])
    assert holdout_id("f" * 64, rows) == H
    assert holdout_id("e" * 64, rows) != H
    assert holdout_id("f" * 64, ~rows) != H


def test_at_the_limit_nothing_is_left(store):
    for i in range(3):
        claim(store, str(i), limit=3)
    worn = claim(store, "late", limit=3)
    assert (worn.use, worn.decided) == (None, 3)
    assert claim(store, "1", limit=3).use == 2  # what was decided stays decided
    assert claim(store, "late", limit=3).decided == 3


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
@settings(max_examples=20, deadline=None)
def test_no_more_is_spent_than_there_is_whatever_the_limits(tmp_path_factory, limits):
    store = LocalStore(tmp_path_factory.mktemp("s"))
    shares = [w.share for i, n in enumerate(limits) if (w := claim(store, str(i), limit=n)).use is not None]
    assert all(s > 0 for s in shares)
    assert sum(shares) <= 1 + 1e-9


@pytest.mark.parametrize("limit", [1, 2, 20, 1000])
def test_shares_add_up_to_one_and_the_first_is_the_largest(limit):
    shares = [share_of(k, limit) for k in range(1, limit + 1)]
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.6


def test_a_decision_without_an_interval_counts_and_spends_nothing(store):
    def free(candidate):
        return claim_use(store, "p", H, candidate=candidate, champion=None, limit=4, spends=False)

    assert (free("a").use, free("a").share) == (1, 0.0)
    assert claim(store, "b", limit=4).share == share_of(1, 4)
    assert free("c").use == 3
    last = claim(store, "d", limit=4)
    assert (last.use, last.share) == (4, share_of(2, 4))
    assert free("e").use is None
    # What was counted without an interval has no share to decide by one now.
    assert claim_use(store, "p", H, candidate="a", champion=None, limit=9).share > 0


def test_only_intervals_spend():
    floor, bound = {"metric": "accuracy", "at_least": 0.5}, {"metric": "accuracy", "at_least": 0.5, "confidence": 0.9}
    gap = {"metric": "accuracy", "by": ["a"], "max_gap": 0.1}
    assert spends([BETTER], 1)
    assert not spends([BETTER, Gate.model_validate(floor)], None)
    assert spends([Gate.model_validate(bound)], None)
    assert spends([Gate.model_validate(gap)], None)


def test_without_a_share_a_gate_is_as_it_was():
    y = np.tile([0, 1], 500)
    found = evaluation(y, y, 1 - y)
    plain, free = decide([BETTER], found), decide([BETTER], found, wear=Wear(1, 20, 0.0, 1))
    assert free.results == plain.results
    assert "has decided 1 of 20 times." in gate_report_html(free, found)


def test_decisions_at_the_same_time_get_different_numbers(store):
    uses: list[Wear] = []
    threads = [threading.Thread(target=lambda i=i: uses.append(claim(store, str(i)))) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(w.use for w in uses) == list(range(1, 9))
    assert sum(w.share for w in uses) < 1


def evaluation(y, candidate, champion):
    frame = pd.DataFrame({"row": np.arange(len(y)), "y": y, "candidate_label": candidate, "champion_label": champion})
    return Evaluation("classification", ("n", "p"), (), frame, True)


BETTER = Gate.model_validate({"metric": "accuracy", "versus": "champion", "better_by": 0.0})


def flipped(rng, y, wrong):
    return np.where(rng.random(len(y)) < wrong, 1 - y, y)


def test_later_uses_ask_for_more(store):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000)
    found = evaluation(y, flipped(rng, y, 0.2), flipped(rng, y, 0.24))
    alone, first, tenth = (
        decide([BETTER], found, wear=w)
        for w in (None, Wear(1, 20, share_of(1, 20), 1), Wear(10, 20, share_of(10, 20), 10))
    )
    assert alone.verdict == first.verdict == "passed"
    assert tenth.verdict == "inconclusive"
    assert first.results[0].low < alone.results[0].low
    assert tenth.results[0].low < first.results[0].low
    assert tenth.results[0].sentence.endswith("; use 10 of 20 of this holdout")
    assert tenth.results[0].gate == {"metric": "accuracy", "versus": "champion", "better_by": 0.0}
    assert tenth.to_dict()["holdout"]["use"] == 10
    assert "has decided 10 of 20 times" in gate_report_html(tenth, found)


def test_one_use_spends_all_of_it():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    found = evaluation(y, flipped(rng, y, 0.2), flipped(rng, y, 0.2))
    plain, once = decide([BETTER], found), decide([BETTER], found, wear=Wear(1, 1, share_of(1, 1), 1))
    assert (once.results[0].low, once.results[0].high) == (plain.results[0].low, plain.results[0].high)


def test_a_worn_out_holdout_lets_nothing_pass():
    y = np.tile([0, 1], 500)
    found = evaluation(y, y, 1 - y)
    floor = Gate.model_validate({"metric": "accuracy", "at_least": 0.5})
    report = decide([BETTER, floor], found, wear=Wear(None, 20, share_of(20, 20), 20))
    assert report.verdict == "inconclusive"
    assert "this holdout has decided 20 times" in report.sentence
    assert "a fresh holdout is due" in report.sentence
    assert [r.verdict for r in report.results] == ["passed", "passed", "inconclusive"]
    assert "was spent on the last one" in gate_report_html(report, found).replace("\n", " ")


def test_twenty_null_candidates_and_one_holdout():
    """That any of 20 candidates, none of them better, is called better: at most alpha. Uncorrected it is far more."""
    rng, n = np.random.default_rng(1), 400
    runs, corrected, bare = 120, 0, 0
    shares = [Wear(k, 20, share_of(k, 20), k) for k in range(1, 21)]
    for _ in range(runs):
        y = rng.integers(0, 2, n)
        champion = flipped(rng, y, 0.25)
        tries = [evaluation(y, flipped(rng, y, 0.25), champion) for _ in shares]
        bare += any(decide([BETTER], t).verdict == "passed" for t in tries)
        corrected += any(decide([BETTER], t, wear=w).verdict == "passed" for t, w in zip(tries, shares, strict=True))
    assert corrected / runs <= 0.05 + 2 * (0.05 * 0.95 / runs) ** 0.5
    assert bare / runs > 0.2
