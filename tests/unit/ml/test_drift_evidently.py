"""Evidently's scores and ours are the same numbers where they mean the same; its verdict is a choice."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from scipy.spatial.distance import jensenshannon

from airflow_mlops.config.models import Drift
from airflow_mlops.ml.drift import check_drift
from airflow_mlops.ml.drift_evidently import Pair, check_by_evidently, scores
from airflow_mlops.ml.drift_profile import column_profile
from airflow_mlops.ml.drift_report import drift_html

KINDS = {"x": "number", "c": "category", "b": "boolean", "null": "number"}


def frame(rng: np.random.Generator, rows: int, shift: int = 0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "x": rng.integers(shift, 20 + shift, rows).astype(float),
            "c": rng.choice(["u", "v", "w"], rows, p=[0.5, 0.3, 0.2] if not shift else [0.2, 0.3, 0.5]),
            "b": rng.random(rows) < 0.3,
            "null": None,
        }
    )


def test_the_same_statistic_is_the_same_number() -> None:
    rng = np.random.default_rng(1)
    a, b = frame(rng, 500), frame(rng, 400, 3)
    theirs = scores({"x": Pair("number", a["x"], b["x"], 0.1), "c": Pair("category", a["c"], b["c"], 0.1)})
    ours = check_drift(a, b, {"x": "number", "c": "category"}, Drift()).columns
    assert ours[0].statistic == "W1"
    assert ours[0].effect == pytest.approx(theirs["x"], abs=1e-9)
    sides = [column_profile(f["c"], "category").side for f in (a, b)]
    shares = [[s.counts[k] / s.values for k in "uvw"] for s in sides]
    assert jensenshannon(*shares) == pytest.approx(theirs["c"], abs=1e-9)


def test_its_verdict_by_named_methods() -> None:
    rng = np.random.default_rng(2)
    a, b = frame(rng, 500), frame(rng, 400, 3)
    report = check_by_evidently(a, b, KINDS, Drift(engine="evidently"), (500, 400))
    assert report.verdict == "drift"
    assert [(c.name, c.statistic, c.drifted) for c in report.columns] == [
        ("x", "wasserstein", True), ("c", "jensenshannon", True),
        ("b", "jensenshannon", False), ("null", "none", False),
    ]  # fmt: skip
    assert report.sentence.startswith("drift in 2 of 4 columns: x (wasserstein 0.")
    assert report.to_dict()["columns"][0]["p_value"] is None
    assert [c.threshold for c in report.columns] == [0.1, 0.1, 0.1, None]
    assert b"Evidently&#x27;s wasserstein" in drift_html(a, b, report, seed=7)
    same = check_by_evidently(a, a, KINDS, Drift(engine="evidently"), (500, 500))
    assert same.verdict == "no_drift"
    few = check_by_evidently(a.head(20), b, KINDS, Drift(engine="evidently"), (20, 400))
    assert few.verdict == "not_enough_data"


def test_keys_that_it_does_not_have_are_refused() -> None:
    with pytest.raises(ValidationError, match="`alpha`, `multivariate` belong to `engine: calibrated`"):
        Drift(engine="evidently", alpha=0.01, multivariate=True)
    assert Drift(engine="evidently", effect=0.2).engine == "evidently"


def test_numbers_that_it_cannot_cut_into_bins_are_named_and_not_drawn() -> None:
    batch = pd.DataFrame({"stamp": np.full(200, 1.7e18), "x": np.arange(200.0)})
    kinds = {"stamp": "number", "x": "number"}
    with pytest.raises(ValueError, match="Too many bins"):
        scores({"stamp": Pair("number", batch["stamp"], batch["stamp"], 0.1)})
    judged = check_by_evidently(batch, batch, kinds, Drift(engine="evidently"), (200, 200))
    assert judged.sentence == "no drift in 1 column; not compared: stamp"
    assert judged.columns[0].sentence == "stamp: the values lie too close together for their size"
    ours = check_drift(batch, batch, kinds, Drift())
    assert ours.sentence == "no drift in 2 columns"
    page = drift_html(batch, batch, ours, seed=7).decode()
    assert "Not drawn, because the values lie too close together for their size: stamp." in page
