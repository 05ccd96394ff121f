"""The experiment's page: everything escaped, nothing loaded, a line for each trial that has a score."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.ml.experiment import table
from airflow_mlops.ml.experiment_report import experiment_report_html

values = st.one_of(
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(max_size=30),
    st.lists(st.integers(0, 5), max_size=3),
)


def page(
    spaces: list[dict[str, list[Any]]], trials: list[tuple[int, dict[str, Any], float | None]], **more: Any
) -> str:
    plan: dict[str, Any] = {
        "strategy": "random", "metric": None, "callable": "m:f", "direction": "minimize", "seed": 7, "asked": None,
        "snapshot": None, "experiment": "ab" * 32, "rungs": [{"number": 1, "trials": len(trials), "resource": None}],
        "candidates": [{"name": f"<c{i}>", "space": s, "train": None, "features": None} for i, s in enumerate(spaces)],
        "trials": [{"number": n, "candidate": f"<c{c}>", "params": p} for n, (c, p, _) in enumerate(trials, 1)],
        **more,
    }  # fmt: skip
    ended = [
        {"number": n, "rung": 1, "score": score, "error": None if score is not None else "<b>bad</b>", "seconds": 1.0,
         "resource": None}
        for n, (_, _, score) in enumerate(trials, 1)
    ]  # fmt: skip
    result = {"sentence": "trial <1>", "seconds": 1.0, "cpu_seconds": 1.0}
    return experiment_report_html(plan, result, table(plan, ended), title="Experiment of <p>")


def test_a_line_a_trial_and_failed_ones_in_the_table() -> None:
    trials = [
        (0, {"a": 1, "b": "x"}, 3.0),
        (0, {"a": 2, "b": "y"}, 1.0),
        (1, {"a": 3}, 2.0),
        (0, {"a": 4, "b": "x"}, None),
    ]
    made = page([{"a": [1, 2, 3, 4], "b": ["x", "y"]}, {"a": [3]}], trials)
    svg = ET.fromstring(re.search(r"<svg.*</svg>", made, re.S)[0])  # type: ignore[index]
    lines = svg.findall("path")
    assert len(lines) == 3
    assert [line.get("class") for line in lines].count("best") == 1
    assert lines[-1].get("class") == "best"
    assert "trial 2" in lines[-1].find("title").text  # type: ignore[union-attr,operator]
    names = [t.text for t in svg.findall("text") if t.get("class") == "name"]
    assert names == ["candidate", "a", "b", "m:f"]
    assert "not set" in [t.text for t in svg.findall("text")]
    assert "&lt;b&gt;bad" in made
    assert "<b>bad" not in made
    assert "<c0>" not in made
    assert "http" not in made


def test_nothing_is_drawn_where_nothing_varies() -> None:
    assert "<svg" not in page([{"a": [1]}], [(0, {"a": 1}, 3.0), (0, {"a": 1}, 2.0)])


@given(st.lists(st.tuples(values, values, st.none() | st.floats(-1e6, 1e6)), min_size=1, max_size=12))
def test_any_values_can_be_drawn(rows: list[tuple[Any, Any, float | None]]) -> None:
    trials = [(0, {"a": a, "b": b}, score) for a, b, score in rows]
    made = page([{"a": [a for a, _, _ in rows], "b": [b for _, b, _ in rows]}], trials)
    for found in re.findall(r'd="([^"]*)"', made):
        numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*", found)]
        assert all(0 <= n <= 1080 for n in numbers)
