from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from airflow_mlops.config.models import Gate
from airflow_mlops.exceptions import DataUnavailable, PredictionError
from airflow_mlops.ml.evaluation import Evaluation, Reference, evaluate
from airflow_mlops.ml.gates import decide, next_reference

GATE = Gate(metric="roc_auc", versus="champion", not_worse_by=0.005)


def evaluation(aucs, n=20_000, seed=0, reference=None, share=0.5):
    """Models whose true ROC AUC is known (binormal), by name, on one holdout."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < share).astype(int)
    shared = np.sqrt(0.95) * rng.normal(size=n)
    columns = {"y": y}
    for name, auc in aucs.items():
        score = shared + np.sqrt(0.05) * rng.normal(size=n) + np.sqrt(2) * norm.ppf(auc) * y
        p = 1 / (1 + np.exp(-score))
        columns |= {f"{name}_proba_0": 1 - p, f"{name}_proba_1": p}
    return Evaluation("classification", (0, 1), (), pd.DataFrame(columns), "champion" in aucs, reference=reference)


def judged(aucs, reference=None, gate=GATE, **more):
    return decide([gate], evaluation(aucs, reference=reference, **more))


V3 = Reference(3, "2024-02-01T00:00:00+00:00")


def test_a_small_loss_to_the_champion_is_not_forgiven_when_the_reference_is_far():
    aucs = {"candidate": 0.69, "champion": 0.691, "reference": 0.71}
    report = judged(aucs, V3)
    result = report.results[0]
    assert report.verdict == "rejected"
    assert ": it is at most 0.005 worse; vs v3, the reference since 2024-02-01, 0.7" in result.sentence
    assert "it is more than 0.005 worse" in result.sentence
    assert result.reference["version"] == 3
    assert result.high == result.reference["high"] < -0.005
    assert judged(aucs).verdict == "passed"


def test_rows_are_kept_for_each_comparison_that_is_undecided():
    found = judged({"candidate": 0.7, "champion": 0.7, "reference": 0.69}, V3, n=300).results[0]
    assert found.verdict == "inconclusive"
    needed = found.reference["needed"]
    assert list(needed) == ["champion", "reference"]
    assert needed["champion"] == found.needed_rows
    assert all(rows is None or rows > 300 for rows in needed.values())
    decided = judged({"candidate": 0.75, "champion": 0.7, "reference": 0.7}, V3).results[0]
    assert decided.reference["needed"] == {}
    alone = judged({"candidate": 0.7, "champion": 0.7}, n=300).results[0]
    assert alone.reference["needed"] == {"champion": alone.needed_rows}


@pytest.mark.parametrize(
    ("candidate", "verdict", "next_one"),
    [(0.75, "passed", 7), (0.7, "passed", 3), (0.66, "rejected", 3)],
)
def test_only_what_is_shown_better_becomes_the_next_reference(candidate, verdict, next_one):
    report = judged({"candidate": candidate, "champion": 0.7, "reference": 0.7}, V3)
    assert report.verdict == verdict
    assert next_reference(report, 7, 3) == next_one


def test_references_without_a_comparison():
    first = judged({"candidate": 0.7})
    assert first.verdict == "no_baseline"
    assert next_reference(first, 1, None) == 1
    floor = decide([Gate(metric="roc_auc", at_least=0.6)], evaluation({"candidate": 0.7, "champion": 0.7}))
    assert next_reference(floor, 2, 1) == 2
    better = Gate(metric="roc_auc", versus="champion", better_by=0.0)
    report = judged({"candidate": 0.72, "champion": 0.7, "reference": 0.9}, V3, better)
    assert report.verdict == "passed"
    assert "reference" not in report.sentence


def test_several_metrics_must_all_be_better():
    gates = [GATE, Gate(metric="log_loss", versus="champion", not_worse_by=9.0)]
    found = evaluation({"candidate": 0.8, "champion": 0.7, "reference": 0.7}, reference=V3)
    frame = found.frame.copy()
    p = np.clip(frame["candidate_proba_1"] ** 4, 1e-6, 1 - 1e-6)  # ranks alike, and is sure of the wrong thing
    frame["candidate_proba_1"], frame["candidate_proba_0"] = p, 1 - p
    worse = Evaluation("classification", (0, 1), (), frame, True, reference=V3)
    report = decide(gates, worse)
    assert report.verdict == "passed"
    assert [r.reference["better"] for r in report.results] == [True, False]
    assert next_reference(report, 7, 3) == 3


def test_a_reference_that_cannot_be_scored_is_said_and_nothing_passes():
    frame = pd.DataFrame({"a": np.arange(100.0)})

    class Model:
        classes_ = np.array([0, 1])

        def predict_proba(self, rows):
            p = (rows["a"].to_numpy() % 7 + 1) / 9
            return np.column_stack([1 - p, p])

    def gone():
        raise PredictionError("the column 'b' is missing")

    def asleep():
        raise DataUnavailable("no answer")

    def score(fetch):
        return evaluate(
            candidate=(Model(), frame),
            champion=(Model(), frame.assign(a=frame["a"] + 1)),
            y=pd.Series(np.arange(100) % 2),
            task="classification",
            metrics=["roc_auc"],
            classes=[0, 1],
            reference=(V3, fetch),
        )

    found = score(gone)
    assert found.reference.problem == "the column 'b' is missing"
    report = decide([Gate(metric="roc_auc", versus="champion", not_worse_by=0.9)], found)
    assert report.verdict == "inconclusive"
    assert "v3, the reference since 2024-02-01, cannot be scored on these rows (the column 'b'" in report.sentence
    assert next_reference(report, 7, 3) == 3
    with pytest.raises(DataUnavailable):
        score(asleep)


def test_the_reference_is_read_back(tmp_path):
    found = evaluation({"candidate": 0.7, "champion": 0.7, "reference": 0.7}, n=500, reference=V3)
    found.to_parquet(tmp_path / "e.parquet")
    assert Evaluation.from_parquet(tmp_path / "e.parquet").reference == V3


def test_small_losses_do_not_pile_up():
    """Retrains that are each 0.003 worse than the champion, with a margin of 0.005."""

    def chain(with_reference):
        champion = reference = 0.8
        for step in range(15):
            candidate = champion - 0.003
            aucs = {"candidate": candidate, "champion": champion}
            if with_reference and reference != champion:
                aucs["reference"] = reference
            about = V3 if "reference" in aucs else None
            report = judged(aucs, about, n=60_000, seed=step)
            if report.verdict == "passed":
                champion = candidate
        return champion

    assert chain(with_reference=False) < 0.77
    assert chain(with_reference=True) >= 0.795 - 1e-9
