from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.config.behaviours import read_behaviours
from airflow_mlops.config.models import Gate
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.behaviours import MOST_ROWS, check_behaviours, judge_behaviours
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.gate_report import gate_report_html
from airflow_mlops.ml.gates import decide

HOLDOUT = pd.DataFrame(
    {
        "distance": np.arange(300.0) * 10,
        "carrier": ["AA", "DL", None] * 100,
        "stops": np.arange(300) % 3,
        "when": pd.date_range("2024-01-01", periods=300),
        "id": range(300),
    },
    index=range(100, 400),
)
NEEDED = ("distance", "carrier", "stops")
CLASSES = ("ok", "late")


def by_distance(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Late with the distance, a little more so for AA; missing distance: 0.5."""
    p = (rows.distance.fillna(1500) / 3000 + 0.1 * (rows.carrier == "AA")).clip(0, 1).to_numpy(float)
    return {"label": (p > 0.5).astype(int), "proba_0": 1 - p, "proba_1": p}


def number_only(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    return {"label": rows.distance.to_numpy(float) * 2}


def tried(tmp_path, text, ask=by_distance, classes=CLASSES, private=(), **more):
    (tmp_path / "a.behaviours.yaml").write_text(text)
    found = read_behaviours(tmp_path, "a.behaviours.yaml")
    outcome = check_behaviours(found, ask, HOLDOUT, classes=classes, needed=NEEDED, private=private, **more)
    json.dumps(outcome, allow_nan=False)
    return outcome


def one(tmp_path, text, **more):
    (case,) = tried(tmp_path, text, **more)["cases"]
    return case


BASE = "base: {distance: 300, carrier: DL, stops: 0}\n"


@pytest.mark.parametrize(
    ("output", "passed", "told"),
    [
        ("{row: {}, expect: ok}", True, "expected 'ok', predicted 'ok'"),
        ("{row: {distance: 2900}, expect: ok}", False, "expected 'ok', predicted 'late'"),
        ("{row: {}, at_least: 0.05, at_most: 0.15}", True, "predicted 0.1"),
        ("{row: {}, at_least: 0.2}", False, "expected at least 0.2, predicted 0.1"),
        ("{row: {}, at_least: 0.9, class: ok}", True, "predicted 0.9"),
        ("{row: {distance: null}, at_least: 0.5, at_most: 0.5}", True, "predicted 0.5"),
    ],
)
def test_outputs(tmp_path, output, passed, told):
    case = one(tmp_path, f"{BASE}outputs:\n  - {output}\n")
    assert case["passed"] is passed
    assert told in case["told"]
    assert case["line"] == 3


@pytest.mark.parametrize(
    ("rule", "passed", "rows"),
    [
        ("{change: stops, to: [0, 1, 2]}", True, MOST_ROWS),
        ("{change: carrier, to: [AA, DL], within: 0.1}", True, MOST_ROWS),
        ("{change: carrier, to: [AA], within: 0.09}", False, MOST_ROWS),
        ("{change: carrier, to: [AA]}", False, MOST_ROWS),  # some rows cross 0.5
        ("{change: carrier, to: [AA], min_share: 0.5}", True, MOST_ROWS),
        ("{change: carrier, to: [AA], rows: [{}, {distance: 10}]}", True, 2),
        ("{change: distance, by: 3, within: 0.0011}", True, MOST_ROWS),
        ("{change: distance, by: 3, within: 0.0009}", False, MOST_ROWS),
        ("{change: distance, to: [null]}", False, MOST_ROWS),
    ],
)
def test_invariances(tmp_path, rule, passed, rows):
    case = one(tmp_path, f"{BASE}invariances:\n  - {rule}\n")
    assert case["passed"] is passed, case
    assert case["rows"] == rows
    assert case["passed"] or "moved by" in case["told"]


def test_a_failed_invariance_has_an_example(tmp_path):
    case = one(tmp_path, "invariances:\n  - {name: names say nothing, change: carrier, to: [AA], within: 0.01}\n")
    assert case["name"] == "names say nothing"
    row = int(case["told"].split("row ")[1].split(" ")[0])
    before = "missing" if pd.isna(HOLDOUT.carrier[row - 1]) else HOLDOUT.carrier[row - 1]
    assert f"row {row} of the snapshot: carrier {before} → AA: 'ok' (" in case["told"]
    assert 0 < case["share"] < 1


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        ("{increase: distance, by: 100, must_not: fall}", True),
        ("{increase: distance, by: 100, must_not: rise}", False),
        ("{increase: distance, by: 100, must_not: rise, within: 0.034}", True),
        ("{increase: distance, by: 100, must_not: rise, class: ok}", True),
        ("{increase: stops, by: 1, must_not: rise}", True),
        ("{increase: distance, by: 100, must_not: rise, rows: [{distance: 2990, carrier: AA}]}", True),
    ],
)
def test_directions(tmp_path, rule, passed):
    case = one(tmp_path, f"{BASE}directions:\n  - {rule}\n")
    assert case["passed"] is passed, case
    if not passed:
        assert "rises with distance in" in case["told"]
        assert " of the snapshot: distance " in case["told"]


def test_rows_without_a_number_cannot_grow(tmp_path):
    text = "directions:\n  - {increase: distance, by: 1, must_not: fall, rows: [{distance: null}, {distance: 5}]}\n"
    assert one(tmp_path, "base: {carrier: DL, stops: 0}\n" + text)["rows"] == 1


def test_numbers(tmp_path):
    of = {"ask": number_only, "classes": None}
    assert one(tmp_path, f"{BASE}outputs:\n  - {{row: {{}}, at_least: 599, at_most: 601}}\n", **of)["passed"]
    assert one(tmp_path, "invariances:\n  - {change: carrier, to: [AA]}\n", **of)["passed"]
    assert not one(tmp_path, "invariances:\n  - {change: distance, by: 1, within: 1.9}\n", **of)["passed"]
    assert one(tmp_path, "invariances:\n  - {change: distance, by: 1, within: 2}\n".replace("2}", "2.0}"), **of)[
        "passed"
    ]
    assert one(tmp_path, "directions:\n  - {increase: distance, by: 1, must_not: fall}\n", **of)["passed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("outputs:\n  - {row: {distance: 1}, expect: ok}\n", "gives no value for carrier, stops"),
        (f"{BASE}outputs:\n  - {{row: {{distanse: 1}}, expect: ok}}\n", "line 3: the data has no column 'distanse'"),
        (f"{BASE}outputs:\n  - {{row: {{}}, expect: later}}\n", "there is no class 'later'"),
        (f"{BASE}outputs:\n  - {{row: {{distance: far}}, expect: ok}}\n", "does not fit its type, float64"),
        ("directions:\n  - {increase: carrier, by: 1, must_not: fall}\n", "no row has a number in 'carrier'"),
        ("invariances:\n  - {change: carrier, by: 1}\n", "'carrier' holds no numbers"),
    ],
)
def test_what_cannot_be_asked_is_an_error(tmp_path, text, message):
    with pytest.raises(EvaluationError, match=message) as e:
        tried(tmp_path, text)
    assert "a.behaviours.yaml, line " in str(e.value)


def test_ranges_need_probabilities(tmp_path):
    def labels(rows):
        return {"label": by_distance(rows)["label"]}

    for text in (
        "outputs:\n  - {row: {}, at_least: 0.5}\n",
        "invariances:\n  - {change: stops, to: [1], within: 0.1}\n",
    ):
        with pytest.raises(EvaluationError, match="probabilities"):
            tried(tmp_path, BASE + text, ask=labels)
    assert one(tmp_path, f"{BASE}outputs:\n  - {{row: {{}}, expect: ok}}\n", ask=labels)["passed"]
    with pytest.raises(EvaluationError, match="is for classes"):
        tried(tmp_path, f"{BASE}outputs:\n  - {{row: {{}}, expect: ok}}\n", ask=number_only, classes=None)


def test_of_three_classes_one_must_be_named(tmp_path):
    def three(rows):
        p = np.full(len(rows), 1 / 3)
        return {"label": np.zeros(len(rows), dtype=int), "proba_0": p, "proba_1": p, "proba_2": p}

    of = {"ask": three, "classes": ("a", "b", "c")}
    with pytest.raises(EvaluationError, match="there are 3 classes"):
        tried(tmp_path, f"{BASE}outputs:\n  - {{row: {{}}, at_least: 0.3}}\n", **of)
    assert one(tmp_path, f"{BASE}outputs:\n  - {{row: {{}}, at_least: 0.3, class: b}}\n", **of)["passed"]


def test_given_rows_have_the_dtypes_of_the_data(tmp_path):
    seen = []

    def ask(rows):
        seen.append(rows.dtypes.to_dict())
        return by_distance(rows)

    one(tmp_path, BASE + "outputs:\n  - {row: {when: 2024-05-01}, expect: ok}\n", ask=ask)
    assert seen[0]["when"] == HOLDOUT.dtypes["when"]
    assert seen[0]["distance"] == "float64"
    assert seen[0]["stops"] == HOLDOUT.dtypes["stops"]


def test_private_values_are_not_told(tmp_path):
    text = """\
base: {distance: 777123, carrier: CANARY, stops: 0}
outputs:
  - {row: {}, at_most: 0.1}
invariances:
  - {change: carrier, to: [CANARY, AA], within: 0.01}
directions:
  - {increase: distance, by: 777, must_not: rise}
"""
    outcome = tried(tmp_path, text, private=["carrier", "distance"])
    assert [c["passed"] for c in outcome["cases"]] == [False] * 3
    told = json.dumps(outcome)
    assert "carrier (private)" in told
    assert "distance (private)" in told
    assert not any(word in told for word in ("CANARY", "777", "DL"))
    with pytest.raises(EvaluationError) as e:
        tried(tmp_path, f"{BASE}outputs:\n  - {{row: {{distance: CANARY}}, expect: ok}}\n", private=["distance"])
    assert "CANARY" not in str(e.value)
    assert e.value.__cause__ is None


def test_the_same_rows_are_drawn_again(tmp_path):
    text = "invariances:\n  - {change: carrier, to: [AA], within: 0.01}\n"
    assert tried(tmp_path, text, seed=3) == tried(tmp_path, text, seed=3)
    assert tried(tmp_path, text, seed=3)["cases"] != tried(tmp_path, text, seed=4)["cases"]


TWO = f"""\
{BASE}outputs:
  - {{row: {{}}, expect: ok}}
  - {{name: far is <late>, row: {{distance: 200}}, expect: late}}
"""


def test_the_gate(tmp_path):
    outcome = tried(tmp_path, TWO)
    all_of_them = judge_behaviours(Gate(behaviours="a.behaviours.yaml"), outcome)
    assert all_of_them.verdict == "rejected"
    assert all_of_them.value == 0.5
    assert (
        "1 of 2 hold, and 100 % must: far is <late> (line 4): expected 'late', predicted 'ok'" in all_of_them.sentence
    )
    half = judge_behaviours(Gate(behaviours="a.behaviours.yaml", at_least=0.5), outcome)
    assert half.verdict == "passed"
    assert "far is <late> (line 4)" in half.sentence
    assert half.behaviours["digest"] == outcome["digest"]
    assert (half.behaviours["held"], len(half.behaviours["cases"])) == (1, 1)


def test_the_gate_in_a_decision(tmp_path):
    frame = pd.DataFrame({"row": range(40), "y": [0, 1] * 20, "candidate_label": [0, 1] * 20})
    found = Evaluation("classification", CLASSES, (), frame, False)
    gates = [Gate(behaviours="a.behaviours.yaml")]
    outcome = tried(tmp_path, TWO)
    report = decide(gates, found, behaviours={"a.behaviours.yaml": outcome})
    assert report.verdict == "rejected"
    page = gate_report_html(report, found)
    assert "Behaviours that do not hold" in page
    assert "far is &lt;late&gt;" in page
    json.dumps(report.to_dict(), allow_nan=False)
    with pytest.raises(EvaluationError, match="did not try the behaviours"):
        decide(gates, found)
