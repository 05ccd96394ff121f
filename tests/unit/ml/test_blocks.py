from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.config.models import Data, Evaluate, Gate
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.blocks import MIN_BLOCKS, block_codes, block_words
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.gates import decide
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.paired import estimate

TIMES = pd.DataFrame({"at": ["2024-01-01T01:00", "2024-01-01T23:00:00Z", "2024-01-02", "2024-01-03T05:00+02:00"]})


def data(**split):
    return Data(source="x", target="y", timestamp="at", split=split or {"by": "time"})


@pytest.mark.parametrize(
    ("block", "codes"),
    [(None, [0, 0, 1, 2]), ("12h", [0, 1, 2, 3]), ("1w", [0, 0, 0, 0]), ("none", None)],
)
def test_time_splits_have_blocks_of_time(block, codes):
    found = block_codes(TIMES, data(), Evaluate(block=block))
    assert found is None if codes is None else found.tolist() == codes


def test_groups_are_blocks_and_random_rows_stand_alone():
    rows = pd.DataFrame({"customer": ["b", "a", "b", "c"]})
    by_group = data(by="group", column="customer")
    assert block_codes(rows, by_group, Evaluate()).tolist() == [0, 1, 0, 2]
    assert block_words(by_group, Evaluate()) == "groups by customer"
    assert block_codes(rows, by_group, Evaluate(block="none")) is None
    assert block_codes(TIMES, data(by="random"), Evaluate()) is None
    assert block_codes(TIMES, data(by="random"), Evaluate(block="1d")).tolist() == [0, 0, 1, 2]


def test_times_that_cannot_be_read_are_said():
    with pytest.raises(DataError, match="does not hold times"):
        block_codes(pd.DataFrame({"at": ["soon"]}), data(), Evaluate())
    with pytest.raises(DataError, match="1 holdout rows have no value in 'at'") as e:
        block_codes(pd.DataFrame({"at": ["2024-01-01", None]}), data(), Evaluate())
    assert "evaluate.block" in e.value.hint


@pytest.mark.parametrize("bad", ["0d", "soon", 3])
def test_a_block_is_a_duration_or_none(bad):
    with pytest.raises(ValueError, match="block"):
        Evaluate(block=bad)


def scores(blocks, per_block, seed=0, effect=1.0):
    """Two models' squared errors that share a part within each block, and the blocks."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(blocks), per_block)
    y = rng.normal(size=len(block))
    said = [Predictions(labels=y + rng.normal(size=len(y)) + effect * rng.normal(size=blocks)[block]) for _ in range(2)]
    return y, *said, block


def test_blocks_widen_the_interval_as_resampling_them_does():
    y, a, b, block = scores(60, 30)
    metric = Metric("mse")
    alone = estimate(metric, y, a, b, n_classes=None)
    found = estimate(metric, y, a, b, n_classes=None, blocks=block)
    assert found.method == "paired t by blocks"
    assert found.blocks == pytest.approx(60)
    assert found.se > 2 * alone.se
    by_block = (metric.row_scores(y, a) - metric.row_scores(y, b)).reshape(60, 30).mean(axis=1)
    rng = np.random.default_rng(1)
    draws = [by_block[rng.integers(0, 60, 60)].mean() for _ in range(2000)]
    assert found.se == pytest.approx(np.std(draws), rel=0.08)


def test_blocks_of_one_row_are_rows():
    y, a, b, _ = scores(1, 300)
    for name in ("mse", "rmse", "r2"):
        one, none = (
            estimate(Metric(name), y, a, b, n_classes=None, blocks=blocks) for blocks in (np.arange(300), None)
        )
        assert one.se == pytest.approx(none.se)
        assert one.value == none.value


def test_other_metrics_resample_whole_blocks(monkeypatch):
    monkeypatch.setattr("airflow_mlops.ml.paired.BOOTSTRAP_DRAWS", 200)
    y, a, b, block = scores(60, 10)
    resampled = estimate(Metric("explained_variance"), y, a, b, n_classes=None, blocks=block)
    formula = estimate(Metric("r2"), y, a, b, n_classes=None, blocks=block)
    assert resampled.method == "bootstrap of blocks"
    assert resampled.se == pytest.approx(formula.se, rel=0.3)


def evaluation(y, a, b, block):
    frame = pd.DataFrame({"y": y, "candidate_label": a.labels, "champion_label": b.labels, "block": block})
    return Evaluation("regression", None, (), frame, True, blocks="blocks of 1d")


def test_a_gate_says_how_many_blocks_it_stands_on_and_refuses_few():
    gate = [Gate(metric="mse", versus="champion", not_worse_by=5.0)]
    enough = decide(gate, evaluation(*scores(30, 20))).results[0]
    assert enough.verdict == "passed"
    assert enough.sentence.endswith("(30 blocks of 1d)")
    few = decide(gate, evaluation(*scores(11, 50))).results[0]
    assert few.verdict == "inconclusive"
    assert "depend on each other within blocks of 1d, of which there are 11, and 12 are needed" in few.sentence
    assert few.needed_rows >= 550 * MIN_BLOCKS / 11
    y, a, b, block = scores(30, 20)
    block = np.where(block < 25, 0, block)  # one block has nearly all the rows
    uneven = decide(gate, evaluation(y, a, b, np.unique(block, return_inverse=True)[1])).results[0]
    assert uneven.verdict == "inconclusive"
    point = decide([Gate(metric="mse", at_most=99.0)], evaluation(*scores(11, 50))).results[0]
    assert point.verdict == "passed"
    shown = decide([Gate(metric="mse", at_most=99.0, confidence=0.95)], evaluation(*scores(11, 50))).results[0]
    assert shown.verdict == "inconclusive"


def test_printed_intervals_stand_on_blocks_too(tmp_path):
    y, a, b, block = scores(30, 20)
    found = evaluation(y, a, b, block)
    assert found.block_count == (30, pytest.approx(30))
    found.to_parquet(tmp_path / "e.parquet")
    back = Evaluation.from_parquet(tmp_path / "e.parquet")
    assert back.blocks == "blocks of 1d"
    assert back.estimate(Metric("mse"), against="champion").blocks == pytest.approx(30)
