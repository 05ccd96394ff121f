from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.ml.selective_labels import check_selection


def predicted(n: int = 2000, seed: int = 0) -> pd.DataFrame:
    p = np.random.default_rng(seed).beta(2, 5, n)
    return pd.DataFrame({"prediction": (p > 0.5).astype(int), "probability": p})


def test_outcomes_that_come_for_one_side_only_are_told_with_numbers() -> None:
    frame = predicted()
    found = check_selection(frame, (frame.prediction == 0).to_numpy(), classes=True)
    assert found is not None
    assert found.by == "prediction"
    assert found.groups["0"][1] == 1.0
    assert found.groups["1"][1] == 0.0
    assert "100% of predictions 0 and for 0% of predictions 1" in found.sentence
    assert "feedback loop" in found.sentence
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_threshold_of_their_own_shows_along_the_score() -> None:
    frame = predicted()
    found = check_selection(frame, (frame.probability < 0.25).to_numpy(), classes=True)
    assert found is not None
    assert found.by == "score"
    assert found.groups["fifth 1 of 5"][1] == 1.0
    assert found.groups["fifth 5 of 5"][1] == 0.0
    numbers = pd.DataFrame({"prediction": np.linspace(0, 9, 1000)})
    assert check_selection(numbers, (numbers.prediction < 4).to_numpy(), classes=False) is not None


def test_none_where_outcomes_come_for_all_or_nobody_or_are_merely_fewer() -> None:
    frame = predicted()
    rng = np.random.default_rng(1)
    for labelled in (
        np.ones(2000),
        np.zeros(2000),
        rng.random(2000) < 0.3,
        rng.random(2000) < 0.45 + 0.1 * frame.prediction,
    ):
        assert check_selection(frame, np.asarray(labelled, dtype=bool), classes=True) is None
    assert check_selection(frame[:0], np.zeros(0, dtype=bool), classes=True) is None
    assert check_selection(frame[:20], (frame.prediction == 0).to_numpy()[:20], classes=True) is None
    labels_only = frame[["prediction"]]
    assert check_selection(labels_only, (frame.prediction == 0).to_numpy(), classes=True) is not None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_outcomes_at_random_raise_no_warning(share: float) -> None:
    rng = np.random.default_rng(2)
    warned = sum(
        check_selection(predicted(200, seed), rng.random(200) < share, classes=True) is not None for seed in range(100)
    )
    # 1 % over both looks, three standard errors above.
    assert warned <= 1 + 3 * (100 * 0.01 * 0.99) ** 0.5
