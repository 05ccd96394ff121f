from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.config.models import Drift
from airflow_mlops.ml.drift import check_drift
from airflow_mlops.ml.drift_report import drift_html

EVIL = "</script><script>alert(1)</script>"


def frame(n, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(shift, 1, n)
    x[0] = 1e9
    return pd.DataFrame(
        {
            "x": x,
            "many": rng.integers(0, 5000, n).astype(str),
            "c": rng.choice(["a", EVIL], n),
            EVIL: rng.choice(["a", None], n),
            "b": rng.random(n) < 0.5,
            "null": None,
            "constant": 3.0,
            "when": pd.date_range("2013", periods=n, freq="min"),
        }
    )


KINDS = {"x": "number", "many": "category", "c": "category", EVIL: "category", "b": "boolean", "null": "number",
         "constant": "number", "when": "category"}  # fmt: skip


@pytest.fixture(scope="module")
def page():
    reference, current = frame(25_000), frame(3000, 0.5, 1)
    report = check_drift(reference, current, KINDS, Drift())
    first = drift_html(reference, current, report, seed=7)
    return report, first, drift_html(reference, current, report, seed=7)


def test_our_decision_is_on_top_and_escaped(page):
    report, raw, _ = page
    text = raw.decode()
    assert report.verdict == "drift"
    assert "<h1>Drift</h1>" in text
    assert "drift in 1 of 7 columns: x (W1 0.5" in text
    assert "show 20,000 and 3,000 of them" in text
    assert "Not drawn, because a side has no values: null." in text
    assert "alert(1)</script>" not in text
    assert EVIL not in text
    assert text.count("Data drift detected") == 1


def test_the_file_loads_nothing(page):
    text = page[1].decode()
    assert not re.findall(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)
    assert text.index("Content-Security-Policy") < text.index("<script")
    assert "default-src 'none'" in text


def test_the_same_input_gives_the_same_bytes(page):
    assert page[1] == page[2]


def test_nothing_to_draw_is_said():
    reference, current = frame(100), frame(10)
    report = check_drift(reference, current, KINDS, Drift())
    text = drift_html(reference, current, report, seed=7).decode()
    assert "<h1>Not enough data</h1>" in text
    assert len(text) < 10_000
    nulls = pd.DataFrame({"x": [None] * 100})
    text = drift_html(nulls, nulls, check_drift(nulls, nulls, {"x": "number"}, Drift()), seed=7).decode()
    assert "Not drawn" in text


def test_a_column_that_vanished_is_named():
    reference = frame(100)[["x", "b"]]
    report = check_drift(reference, reference[["b"]], {"x": "number", "b": "boolean"}, Drift())
    assert "has no values: x." in drift_html(reference, reference[["b"]], report, seed=7).decode()
