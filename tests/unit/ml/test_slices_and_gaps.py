from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score, roc_auc_score

from airflow_mlops.config.models import Gate
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.evaluation import Evaluation, evaluate
from airflow_mlops.ml.gaps import difference_bounds
from airflow_mlops.ml.gate_report import gate_report_html
from airflow_mlops.ml.gate_result import SliceResult
from airflow_mlops.ml.gates import decide
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.paired import estimate
from airflow_mlops.ml.slices import named


def evaluation(sizes, signals, *, share=0.4, seed=0, column="group", known=None, block=None):
    """One model whose signal differs between groups ``g0``, ``g1``, …"""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"g{i}" for i in range(len(sizes))], sizes)
    y = (rng.random(len(groups)) < share).astype(int)
    score = rng.normal(size=len(y)) + np.repeat(signals, sizes) * (y - 0.5)
    mixed = rng.permutation(len(y))
    groups, y, score = groups[mixed], y[mixed], score[mixed]
    p = 1 / (1 + np.exp(-score))
    columns = {"y": y, "candidate_proba_0": 1 - p, "candidate_proba_1": p, "candidate_label": (p > 0.5).astype(int)}
    columns[f"slice:{column}"] = groups.astype(object)
    if block is not None:
        columns["block"] = rng.integers(0, block, len(y))
    return Evaluation("classification", (0, 1), (), pd.DataFrame(columns), False, known=known or {})


def one(found, **gate):
    return decide([Gate(**gate)], found).results[0]


AUC = {"metric": "roc_auc", "at_least": 0.6, "slices": ["group"]}
RECALL = {"metric": "recall", "by": ["group"], "max_gap": 0.1}


def test_slice_values_are_those_of_scikit_learn():
    found = evaluation([500, 300], [1.0, 2.0])
    result = one(found, **AUC)
    for s in result.slices:
        rows = (found.slices["group"] == s.value_of).to_numpy()
        assert s.rows == rows.sum()
        assert s.value == pytest.approx(roc_auc_score(found.y[rows], found.frame["candidate_proba_1"][rows]))
        assert s.low < s.value < s.high
    assert result.verdict == "passed"


def test_a_slice_fails_only_where_all_slices_together_show_it():
    found = evaluation([4000, 4000, 100], [1.5, 0.1, 0.2])
    result = one(found, **AUC)
    assert [s.verdict for s in result.slices] == ["passed", "rejected", "inconclusive"]
    assert result.verdict == "rejected"
    assert "1 of 3 slices fail" in result.sentence
    assert "1 not shown either way: group = g2" in result.sentence
    found = evaluation([4000, 100], [1.5, 0.3])
    just_above = one(found, **AUC).slices[1].value + 0.02
    assert one(found, **AUC | {"at_least": just_above}).verdict == "inconclusive"


def test_with_confidence_every_slice_must_be_shown():
    found = evaluation([4000, 150], [1.5, 0.6])
    assert one(found, **AUC).verdict == "passed"
    assert one(found, **AUC, confidence=0.95).verdict == "inconclusive"
    assert one(evaluation([4000, 4000], [1.5, 1.5]), **AUC, confidence=0.95).verdict == "passed"


def test_many_equal_slices_are_rarely_rejected():
    """Each of 20 slices is exactly at the limit: by chance alone half of them lie below it."""
    rng = np.random.default_rng(0)
    rejected = passed = 0
    for _ in range(100):
        y = rng.integers(0, 2, 4000)
        right = rng.random(4000) < 0.8
        frame = pd.DataFrame({"y": y, "candidate_label": np.where(right, y, 1 - y)})
        frame["slice:group"] = np.repeat([f"g{i}" for i in range(20)], 200).astype(object)
        found = Evaluation("classification", (0, 1), (), frame, False)
        verdict = one(found, metric="accuracy", at_least=0.8, slices=["group"]).verdict
        rejected += verdict == "rejected"
        passed += verdict == "passed"
    assert rejected <= 10
    assert passed <= 2


def test_missing_slices_are_a_finding_and_asked_for_ones_must_be_there():
    found = evaluation([500, 500], [1.5, 1.5], known={"group": ["g0", "g1", "g7"]})
    result = one(found, **AUC)
    assert result.verdict == "passed"
    assert result.slices_missing == ("group = g7",)
    assert "1 known from training and not in the holdout (group = g7)" in result.sentence
    wanted = one(found, **AUC, slice_values={"group": ["g0", "g9"]})
    assert wanted.verdict == "inconclusive"
    assert [s.value_of for s in wanted.slices] == ["g0", "g9"]
    assert "group = g9 (it is not in the holdout)" in wanted.sentence
    small = one(evaluation([500, 50], [1.5, 1.5]), **AUC, slice_values={"group": ["g1"]})
    assert small.verdict == "inconclusive"
    assert "it has fewer than 100 rows" in small.sentence
    with pytest.raises(ValidationError, match="slice_values"):
        Gate(metric="roc_auc", at_least=0.5, slices=["a"], slice_values={"b": ["x"]})


def test_slices_of_dependent_rows_need_blocks():
    result = one(evaluation([500, 500], [1.5, 1.5], block=8), **AUC)
    assert result.verdict == "inconclusive"
    assert "of which there are 8" in result.sentence
    assert one(evaluation([500, 500], [1.5, 1.5], block=40), **AUC).verdict == "passed"


def test_a_gap_has_three_outcomes():
    same = one(evaluation([6000, 6000], [1.5, 1.5]), **RECALL)
    assert same.verdict == "passed"
    assert same.sentence.endswith("with all pairs in mind: it is at most 0.1")
    far = one(evaluation([6000, 6000, 6000], [1.5, 1.5, 0.2]), **RECALL)
    assert far.verdict == "rejected"
    assert "group = g2" in far.sentence
    assert "it is more than 0.1" in far.sentence
    assert far.low > 0.1
    few = one(evaluation([200, 200], [1.5, 1.5]), **RECALL)
    assert few.verdict == "inconclusive"
    assert "cannot show it is at most 0.1" in few.sentence
    for s in far.slices:
        assert s.low < s.value < s.high


def test_a_gap_names_the_two_groups_that_are_furthest_apart():
    found = evaluation([3000, 3000, 3000], [2.0, 1.0, 0.0])
    result = one(found, metric="recall", by=["group"], max_gap=0.5)
    values = [
        recall_score(found.y[rows], found.frame["candidate_label"][rows])
        for rows in ((found.slices["group"] == g).to_numpy() for g in ("g0", "g1", "g2"))
    ]
    assert result.value == pytest.approx(max(values) - min(values))
    assert "between group = g0" in result.sentence
    assert "and group = g2" in result.sentence


def test_a_gap_without_two_groups_is_no_pass():
    single = one(evaluation([3000], [1.0]), **RECALL)
    assert single.verdict == "inconclusive"
    assert "there are no two groups to compare" in single.sentence
    scarce = one(evaluation([3000, 3000, 150], [1.0, 1.0, 1.0], share=0.1), **RECALL)
    assert scarce.verdict == "inconclusive"
    assert "1 not to be judged: group = g2 (class 1 has" in scarce.sentence
    small = one(evaluation([6000, 6000, 50], [1.5, 1.5, 1.5]), **RECALL)
    assert small.verdict == "passed"
    assert "1 smaller than 100 rows not judged (group = g2)" in small.sentence
    with pytest.raises(EvaluationError, match="no column 'sex'"):
        one(evaluation([3000], [1.0]), metric="recall", by=["sex"], max_gap=0.1)


@pytest.mark.parametrize(
    "bad",
    [
        {"metric": "recall", "by": ["sex"]},
        {"metric": "recall", "max_gap": 0.1},
        {"metric": "recall", "by": ["sex"], "max_gap": 0.1, "at_least": 0.5},
        {"metric": "recall", "by": ["sex"], "max_gap": 0.1, "slices": ["sex"]},
        {"metric": "recall", "by": ["sex"], "max_gap": 0.0},
        {"serving": {}, "by": ["sex"], "max_gap": 0.1},
    ],
)
def test_gaps_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValidationError):
        Gate(**bad)


def test_error_rates_of_a_difference_of_two_groups():
    """Right in 0.95 of 80 rows against 0.85 of 200 others: the one-sided bounds miss no more often than they say."""
    rng = np.random.default_rng(0)
    accuracy, below, above, runs = Metric("accuracy"), 0, 0, 1500
    for _ in range(runs):
        found = []
        for n, share in ((80, 0.95), (200, 0.85)):
            labels = (rng.random(n) < share).astype(int)
            found.append(estimate(accuracy, np.ones(n, dtype=int), Predictions(labels=labels), n_classes=2))
        low, high = difference_bounds(*found, 0.95)
        below += low > 0.1
        above += high < 0.1
    assert below / runs <= 0.06
    assert above / runs <= 0.06


def test_groups_that_share_blocks_have_the_wider_interval():
    rng = np.random.default_rng(1)
    y = rng.normal(size=600)
    found = [estimate(Metric("mse"), y, Predictions(labels=y + rng.normal(size=600)), n_classes=None) for _ in range(2)]
    alone, shared = difference_bounds(*found, 0.95), difference_bounds(*found, 0.95, dependent=True)
    assert shared[0] < alone[0]
    assert shared[1] > alone[1]


def test_a_rejection_tells_a_slice_that_fails_and_not_a_lower_one_that_is_too_small_to_tell():
    found = evaluation([4000, 4000, 100], [1.5, 0.1, 0.0])
    result = one(found, **AUC | {"at_least": 0.55})
    assert [s.verdict for s in result.slices] == ["passed", "rejected", "inconclusive"]
    assert result.slices[2].value < result.slices[1].value
    assert "of the worst slice that fails, group = g1" in result.sentence
    assert result.value == result.slices[1].value


def shares(**groups):
    """An evaluation whose groups have exactly these recalls: name → (positives, those found, negatives)."""
    frames = []
    for name, (positives, hits, negatives) in groups.items():
        y = np.repeat([1, 0], [positives, negatives])
        label = (np.arange(len(y)) < hits).astype(int)
        frames.append(pd.DataFrame({"y": y, "candidate_label": label, "slice:group": name}))
    return Evaluation("classification", (0, 1), (), pd.concat(frames, ignore_index=True), False)


def test_an_unsure_gap_tells_the_two_groups_that_are_unsure():
    wide = shares(a=(6000, 4800, 100), b=(6000, 4200, 100))
    assert one(wide, **RECALL | {"max_gap": 0.12}).verdict == "passed"
    result = one(shares(a=(6000, 4800, 100), b=(6000, 4200, 100), c=(100, 76, 100)), **RECALL | {"max_gap": 0.12})
    assert result.verdict == "inconclusive"
    assert "recall gap 0.060 between group = c" in result.sentence
    assert result.sentence.endswith("cannot show it is at most 0.12")


def test_a_gap_that_holds_is_not_called_unsure_because_of_a_group_that_cannot_be_judged():
    result = one(shares(a=(6000, 4800, 100), b=(6000, 4500, 100), c=(20, 15, 180)), **RECALL)
    assert result.verdict == "inconclusive"
    assert "it is at most 0.1; 1 not to be judged: group = c" in result.sentence
    assert "cannot show" not in result.sentence


@pytest.mark.parametrize(
    ("sizes", "told"), [([500, 50], "1 smaller slice was"), ([500, 50, 40], "2 smaller slices were")]
)
def test_the_page_counts_the_smaller_slices(sizes, told):
    found = evaluation(sizes, [1.5] * len(sizes))
    page = gate_report_html(decide([Gate(**AUC)], found), found)
    assert f"{told} not judged." in " ".join(page.split())


def test_min_rows_needs_parts_and_a_serving_gate_takes_no_confidence():
    with pytest.raises(ValidationError, match="min_rows"):
        Gate(metric="roc_auc", at_least=0.6, min_rows=20)
    with pytest.raises(ValidationError, match="stands alone"):
        Gate(serving={}, confidence=0.9)
    kept = Gate(metric="roc_auc", at_least=0.6)
    assert Gate.model_validate(kept.model_dump()) == kept


def test_integers_beside_missing_values_keep_their_names():
    y = np.tile([0, 1], 300)
    inputs = pd.DataFrame({"x": y + np.sin(np.arange(600))})
    route = pd.Series(np.where(np.arange(600) % 100 == 0, np.nan, np.arange(600) // 2 % 3))
    half = pd.Series(np.arange(600) % 3 / 2)
    found = evaluate(
        candidate=(LogisticRegression().fit(inputs, y), inputs),
        champion=None,
        y=pd.Series(y),
        task="classification",
        metrics=["accuracy"],
        classes=[0, 1],
        gate_metrics=[],
        slices={"route": route, "half": half},
    )
    assert set(found.slices["route"]) == {"0", "1", "2", "(missing)"}
    assert set(found.slices["half"]) == {"0.0", "0.5", "1.0"}
    wanted = one(found, metric="accuracy", at_least=0.5, slices=["route"], slice_values={"route": [1, 2]})
    assert [s.value_of for s in wanted.slices] == ["1", "2"]
    assert wanted.verdict == "passed"


def test_a_reason_that_all_slices_share_is_told_once():
    few = [SliceResult("hour", str(i), 40, None, "inconclusive", why="it has 4 blocks") for i in range(5)]
    assert named(few) == "hour = 0, hour = 1, hour = 2 and 2 more (it has 4 blocks)"
    assert named(few[:1]) == "hour = 0 (it has 4 blocks)"
    mixed = [few[0], SliceResult("hour", "1", 2, None, "inconclusive", why="it is not in the holdout")]
    assert named(mixed) == "hour = 0 (it has 4 blocks), hour = 1 (it is not in the holdout)"
