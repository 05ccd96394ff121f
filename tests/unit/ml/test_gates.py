from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_mlops.config.models import Gate, Serving
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.evaluation import Evaluation, MetricValue
from airflow_mlops.ml.gate_report import gate_report_html
from airflow_mlops.ml.gates import decide, gate_metrics
from airflow_mlops.ml.versus import three_way


def evaluation(candidate, champion=None, *, y, classes=("ok", "late"), slices=None, same_model=False, metrics=()):
    """From scores (two classes) or, with ``classes=None``, predicted numbers."""
    columns = {"row": np.arange(len(y)), "y": np.asarray(y)}
    for name, said in (("candidate", candidate), ("champion", champion)):
        if said is None:
            continue
        said = np.asarray(said, dtype=float)
        if classes is None:
            columns[f"{name}_label"] = said
            continue
        p = 1 / (1 + np.exp(-said))
        columns |= {f"{name}_proba_0": 1 - p, f"{name}_proba_1": p, f"{name}_label": (p > 0.5).astype(int)}
    columns |= {f"slice:{c}": np.asarray(v, dtype=object) for c, v in (slices or {}).items()}
    task = "regression" if classes is None else "classification"
    return Evaluation(task, classes, tuple(metrics), pd.DataFrame(columns), champion is not None, same_model)


def models(n=1000, gain=0.0, seed=0, share=0.3):
    """Labels and two correlated scores; the candidate's signal is ``gain`` stronger."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < share).astype(int)
    shared = rng.normal(size=n)
    mine, theirs = (0.95 * shared + 0.3 * rng.normal(size=n) for _ in range(2))
    return y, mine + (1 + gain) * y, theirs + y


def one(gate, found, **more):
    return decide([Gate(**gate)], found, **more).results[0]


NOT_WORSE = {"metric": "roc_auc", "versus": "champion", "not_worse_by": 0.02}
BETTER = {"metric": "roc_auc", "versus": "champion", "better_by": 0.02}


@pytest.mark.parametrize(
    ("gain", "n", "gate", "verdict"),
    [
        (0.0, 20000, NOT_WORSE, "passed"),
        (0.5, 2000, NOT_WORSE, "passed"),
        (-0.5, 2000, NOT_WORSE, "rejected"),
        (-0.1, 300, NOT_WORSE, "inconclusive"),
        (0.5, 2000, BETTER, "passed"),
        (0.0, 20000, BETTER, "rejected"),
        (-0.5, 2000, BETTER, "rejected"),
        (0.1, 300, BETTER, "inconclusive"),
    ],
)
def test_three_outcomes(gain, n, gate, verdict):
    y, a, b = models(n, gain)
    result = one(gate, evaluation(a, b, y=y))
    assert result.verdict == verdict, result.sentence
    assert result.low < result.value < result.high
    assert result.sentence.startswith("roc_auc 0.")
    assert "90 % CI" in result.sentence
    assert (result.needed_rows is not None) == (verdict == "inconclusive")


def test_needed_rows_are_an_honest_estimate():
    y, a, b = models(300, -0.02)
    result = one(NOT_WORSE, evaluation(a, b, y=y))
    assert result.verdict == "inconclusive"
    assert "cannot show it is at most 0.02 worse; about" in result.sentence
    repeats = math.ceil(result.needed_rows / 300) + 1
    again = evaluation(np.tile(a, repeats), np.tile(b, repeats), y=np.tile(y, repeats))
    assert one(NOT_WORSE, again).verdict != "inconclusive"


def test_lower_is_better_counts_the_other_way_round():
    rng = np.random.default_rng(1)
    y = rng.normal(size=500)
    found = evaluation(y + rng.normal(size=500), y + 2 * rng.normal(size=500), y=y, classes=None)
    for metric in ("rmse", "mae", "mse"):
        result = one({"metric": metric, "versus": "champion", "better_by": 0.1}, found)
        assert result.verdict == "passed"
        assert result.low > 0.1
        assert "(lower is better): advantage +" in result.sentence
    assert one({"metric": "r2", "versus": "champion", "not_worse_by": 0.0}, found).verdict == "passed"


def test_absolute_gates_and_their_direction():
    y, a, b = models()
    found = evaluation(a, b, y=y)
    assert one({"metric": "roc_auc", "at_least": 0.6}, found).sentence.endswith("reaches 0.6")
    low = one({"metric": "roc_auc", "at_least": 0.99}, found)
    assert low.verdict == "rejected"
    assert low.sentence.endswith("is below 0.99")
    assert one({"metric": "log_loss", "at_most": 9.0}, found).verdict == "passed"
    assert one({"metric": "log_loss", "at_most": 0.01}, found).verdict == "rejected"
    assert one({"metric": "neg_log_loss", "at_least": -9.0}, found).verdict == "passed"
    with pytest.raises(EvaluationError, match="lower is better") as e:
        one({"metric": "log_loss", "at_least": 0.5}, found)
    assert "at_most" in e.value.hint
    with pytest.raises(EvaluationError, match="higher is better"):
        one({"metric": "roc_auc", "at_most": 0.5}, found)


def test_value_beside_its_threshold_is_printed_apart_from_it():
    y = np.arange(100000) % 2
    found = evaluation(np.where(np.arange(100000) < 61999, y, 1 - y) * 2.0 - 1, y=y)
    sentence = one({"metric": "accuracy", "at_least": 0.62}, found).sentence
    assert sentence == "accuracy 0.61999 is below 0.62"


@pytest.mark.parametrize(
    "bad",
    [
        {"metric": "roc_auc"},
        {"metric": "roc_auc", "at_least": 0.5, "at_most": 0.9},
        {"metric": "roc_auc", "versus": "champion", "at_most": 0.9},
        {"metric": "roc_auc", "versus": "champion", "at_most": 0.9, "better_by": 0.1},
        {"metric": "roc_auc", "at_least": math.nan},
        {"metric": "roc_auc", "versus": "champion", "not_worse_by": math.inf},
        {"serving": {"p95_ms": 1.0}, "at_most": 2.0},
    ],
)
def test_gates_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValidationError):
        Gate(**bad)


def test_few_rows_of_a_class_never_decide():
    y, a, b = models(2000, 3.0)
    keep = np.r_[np.flatnonzero(y == 1)[:29], np.flatnonzero(y == 0)]
    result = one(NOT_WORSE, evaluation(a[keep], b[keep], y=y[keep]))
    assert result.verdict == "inconclusive"
    assert "class 'late' has 29 holdout rows, and 30 are needed" in result.sentence
    assert result.needed_rows > len(keep)
    few = evaluation(np.arange(29.0), np.arange(29.0) * 9, y=np.arange(29.0), classes=None)
    result = one({"metric": "rmse", "versus": "champion", "better_by": 0.1}, few)
    assert result.verdict == "inconclusive"
    assert "the holdout has 29 rows" in result.sentence


def test_one_class_never_passes():
    y, a, b = np.zeros(200, dtype=int), np.arange(200.0), np.arange(200.0)
    for gate in (NOT_WORSE, {"metric": "roc_auc", "at_least": 0.0}):
        with pytest.raises(EvaluationError, match="at least two classes"):
            one(gate, evaluation(a, b, y=y))


def test_nan_never_passes():
    y, a, b = models(200)
    a[3] = math.nan
    for gate in (
        {"metric": "log_loss", "at_most": 1e9},
        {"metric": "log_loss", "versus": "champion", "not_worse_by": 9.0},
    ):
        with pytest.raises(EvaluationError, match="nan"):
            one(gate, evaluation(a, b, y=y))


def test_no_champion_and_same_champion():
    y, a, _ = models()
    result = one(NOT_WORSE, evaluation(a, y=y))
    assert result.verdict == "no_baseline"
    assert "no champion" in result.sentence
    same = evaluation(a, a, y=y, same_model=True)
    assert one(NOT_WORSE, same).verdict == "passed"
    assert one(BETTER, same).verdict == "rejected"
    assert "byte for byte" in decide([Gate(**NOT_WORSE)], same).sentence


def test_agreement_on_a_small_holdout_shows_nothing_of_rare_rows():
    gate = {"metric": "accuracy", "versus": "champion", "not_worse_by": 0.005}
    rng = np.random.default_rng(3)
    passed = 0
    for _ in range(200):
        y = rng.integers(0, 2, 200)
        champion = np.where(y, 2.0, -2.0)
        candidate = np.where(rng.random(200) < 0.005, -champion, champion)  # exactly at the margin
        passed += one(gate, evaluation(candidate, champion, y=y)).verdict == "passed"
    assert passed <= 0.06 * 200
    few = one(gate, evaluation(champion[:40], champion[:40], y=y[:40]))
    assert (few.verdict, "more holdout rows would decide" in few.sentence) == ("inconclusive", True)
    y = np.tile(y, 20)
    same = decide([Gate(**gate)], evaluation(np.tile(champion, 20), np.tile(champion, 20), y=y))
    assert (same.verdict, "predicts exactly what the champion does" in same.sentence) == ("passed", True)
    better = one(gate | {"not_worse_by": None, "better_by": 0.0}, evaluation(champion, champion, y=y[:200]))
    assert better.verdict == "rejected"


def test_overall_verdict_is_the_worst():
    y, a, b = models(300, -0.1)
    passes, fails = Gate(metric="roc_auc", at_least=0.1), Gate(metric="roc_auc", at_least=0.99)
    unsure = Gate(**NOT_WORSE)
    found = evaluation(a, b, y=y)
    assert decide([], found).verdict == "passed"
    assert decide([passes], found).verdict == "passed"
    assert decide([passes, unsure], found).verdict == "inconclusive"
    report = decide([unsure, fails, passes], found)
    assert report.verdict == "rejected"
    assert [r.verdict for r in report.results] == ["inconclusive", "rejected", "passed"]
    assert "cannot show" not in report.sentence
    alone = evaluation(a, y=y)
    assert decide([passes, unsure], alone).verdict == "no_baseline"
    assert decide([unsure, fails], alone).verdict == "rejected"
    assert gate_metrics([passes, fails, Gate(metric="f1", at_least=0.1)]) == ["roc_auc", "f1"]


SLICED = {"metric": "roc_auc", "at_least": 0.6, "slices": ["carrier"], "min_rows": 100}


def test_slices_name_the_worst_and_count_the_small():
    y, a, _ = models(1000)
    carrier = np.repeat(["AA", "BB", "CC", "DD"], [450, 350, 151, 49])
    a[carrier == "CC"] = 0.0
    result = one(SLICED, evaluation(a, y=y, slices={"carrier": carrier}))
    assert result.verdict == "rejected"
    assert result.value == 0.5
    assert "0.500 of the worst slice, carrier = CC (151 rows, 0.500…0.500 with all slices in mind)" in result.sentence
    assert "is below 0.6; 1 of 3 slices fail; 1 smaller than 100 rows not judged (carrier = DD)" in result.sentence
    assert [s.value_of for s in result.slices] == ["AA", "BB", "CC"]
    assert one({**SLICED, "min_rows": 200}, evaluation(a, y=y, slices={"carrier": carrier})).verdict == "passed"
    losses = {"metric": "log_loss", "at_most": 5.0, "slices": ["carrier"]}
    assert one(losses, evaluation(a, y=y, slices={"carrier": carrier})).value > 0.6


def test_slices_that_show_nothing_do_not_pass():
    y, a, _ = models(1000)
    carrier = np.repeat(["AA", "BB"], 500)
    y[500:] = 0
    result = one(SLICED, evaluation(a, y=y, slices={"carrier": carrier}))
    assert result.verdict == "inconclusive"
    assert "1 not shown either way: carrier = BB (class 'late' has 0 rows in it, and 30 are needed)" in result.sentence
    result = one({**SLICED, "min_rows": 2000}, evaluation(a, y=y, slices={"carrier": carrier}))
    assert result.verdict == "inconclusive"
    assert "no slice has 2000 rows" in result.sentence
    with pytest.raises(EvaluationError, match="no column 'carrier'"):
        one(SLICED, evaluation(a, y=y))


SERVED = {
    "load_ms": 9.0, "p50_ms": 1.0, "p95_ms": 2.0, "size_mb": 3.0, "rows": 50, "equal": True, "error": None,
    "rows_per_second": 5000.0, "batch_rows": 1000, "memory_mb": 180.0, "environment": [],
}  # fmt: skip
ALL_LIMITS = {"p50_ms": 1.0, "p95_ms": 20.0, "max_mb": 5.0, "min_rows_per_second": 5000.0, "max_memory_mb": 180.0}


@pytest.mark.parametrize(
    ("change", "verdict", "text"),
    [
        ({}, "passed", "same predictions"),
        ({"p95_ms": 21.0}, "rejected", "p95 of one row 21 ms is above 20 ms"),
        ({"p95_ms": math.nan}, "rejected", "above"),
        ({"size_mb": 6.0}, "rejected", "model file 6 MB is above 5 MB"),
        ({"equal": False}, "rejected", "predicts something else"),
        ({"p50_ms": 1.1}, "rejected", "median of one row 1.1 ms is above 1 ms"),
        ({"rows_per_second": 4999.0}, "rejected", "4,999 rows/s in a batch of 1,000 are fewer than 5,000"),
        ({"rows_per_second": math.nan}, "rejected", "fewer than"),
        ({"memory_mb": 181.0}, "rejected", "peak memory 181 MB is above 180 MB"),
        ({"environment": ["pandas 2.2 → 3.0"]}, "passed", "environment differs from training's: pandas 2.2 → 3.0"),
        ({"environment": list("abcde")}, "passed", "a, b, c and 2 more"),
        ({"environment": None}, "passed", "same predictions"),
        ({"error": "no answer within 120 s", "p95_ms": None}, "rejected", "no answer within 120 s"),
    ],
)
def test_serving_gate(change, verdict, text):
    y, a, _ = models(100)
    gate = {"serving": Serving(**ALL_LIMITS)}
    result = one(gate, evaluation(a, y=y), serving=lambda config: SERVED | change)
    assert result.verdict == verdict
    assert text in result.sentence
    with pytest.raises(EvaluationError, match="serving check"):
        one(gate, evaluation(a, y=y))


@pytest.mark.parametrize(
    ("environment", "text"),
    [(["Python 3.11 → 3.12"], "differs from training's: Python 3.11 → 3.12"), (None, "was not recorded")],
)
def test_another_environment_can_be_refused(environment, text):
    y, a, _ = models(100)
    gate = {"serving": Serving(environment="reject")}
    result = one(gate, evaluation(a, y=y), serving=lambda config: SERVED | {"environment": environment})
    assert result.verdict == "rejected"
    assert text in result.sentence
    assert one(gate, evaluation(a, y=y), serving=lambda config: SERVED).verdict == "passed"


bounds = st.floats(-1, 1)
margins = st.floats(0, 1)
anything = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=200, deadline=None)
@given(bounds, margins, margins, st.floats(0, 1))
def test_a_wider_margin_never_makes_it_harder(value, small, more, half):
    order = {"rejected": 0, "inconclusive": 1, "passed": 2}
    interval = (value - half, value + half)
    narrow, wide = sorted((small, more))

    def verdicts(kind):
        gates = [Gate(metric="r2", versus="champion", **{kind: m}) for m in (narrow, wide)]
        return [order[three_way(gate, value, interval)] for gate in gates]

    tolerant, demanding = verdicts("not_worse_by"), verdicts("better_by")
    assert tolerant[0] <= tolerant[1]
    assert demanding[0] >= demanding[1]
    # What is better by a margin is not worse by any.
    assert demanding[1] < 2 or tolerant[0] == 2


@settings(max_examples=100, deadline=None)
@given(anything, anything, anything, margins)
def test_only_finite_numbers_pass(value, low, high, margin):
    for kind in ("not_worse_by", "better_by"):
        gate = Gate(metric="r2", versus="champion", **{kind: margin})
        if not all(map(math.isfinite, (value, low, high))):
            assert three_way(gate, value, (low, high)) == "inconclusive"
    assert three_way(gate, value, None) == "inconclusive"


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(60, 400), st.floats(-1, 1), st.sampled_from(["roc_auc", "log_loss", "accuracy"])
)
def test_any_comparison_gives_a_readable_json_result(seed, n, gain, metric):
    y, a, b = models(n, gain, seed)
    if len(set(y)) < 2:
        return
    gates = [
        Gate(metric=metric, versus="champion", not_worse_by=0.01),
        Gate(metric=metric, versus="champion", better_by=0.0),
    ]
    report = decide(gates, evaluation(a, b, y=y))
    json.dumps(report.to_dict(), allow_nan=False)
    tolerant, better = report.results
    assert not (better.verdict == "passed" and tolerant.verdict == "rejected")
    assert "nan" not in report.sentence


def test_report_page_is_complete_and_escaped():
    y, a, b = models(1000, -0.5)
    carrier = np.repeat(["<script>alert(1)</script>", "B&B", "small"], [500, 490, 10])
    metrics = [MetricValue("roc_auc", False, 0.7, 0.6, 0.8, 0.71, None, None)]
    found = evaluation(a, b, y=y, slices={"carrier": carrier}, classes=("<i>", "late"), metrics=metrics)
    gates = [Gate(**NOT_WORSE), Gate(**SLICED), Gate(serving=Serving(p95_ms=20.0))]
    report = decide(gates, found, serving=lambda config: SERVED | {"error": "<b>boom</b>"})
    page = gate_report_html(report, found, title="Gates of <x>")
    assert page.startswith("<!doctype html>")
    for text in (
        "Rejected",
        "&lt;script&gt;",
        "B&amp;B",
        "&lt;b&gt;boom",
        "Gates of &lt;x&gt;",
        "<svg",
        "&lt;i&gt;",
        "0.71",
    ):
        assert text in page
    for text in ("<script", "<b>boom", "http://", "https://", "<i>"):
        assert text not in page
    empty = decide([], found)
    assert "No gates are configured" in gate_report_html(empty, found)
