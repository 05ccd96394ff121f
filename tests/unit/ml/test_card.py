from __future__ import annotations

import ast
import html as html_module
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from airflow_mlops.ml.card import card_of, keep_card, model_card
from airflow_mlops.registry.artifacts import store_model
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore, get_blob

EVIL = "<script>alert(1)</script>|x"


def record(**changes: Any) -> dict[str, Any]:
    return {
        "model": {
            "digest": "d" * 64,
            "bytes": 12345,
            "environment": {
                "python": "3.11.9",
                "platform": "Linux",
                "packages": {"scikit-learn": "1.9.1", "pyarrow": None},
            },
        },
        "schema": {
            "features": [
                {"name": "carrier", "kind": "category", "categories": [f"c{i}" for i in range(12)]},
                {"name": "distance", "kind": "number", "categories": None},
            ],
            "target": "late",
            "classes": [0, 1],
            "positive": 1,
            "excluded": [{"name": "air_time", "why": "in data.exclude"}],
        },
        "task": "classification",
        "snapshot": {
            "snapshot": "5" * 64,
            "fingerprint": "f" * 64,
            "rows": 1000,
            "window": {"start": "2013-01-01T00:00:00+00:00", "end": "2013-02-01T00:00:00+00:00"},
        },
        "rows": {"train": 800, "holdout": 200},
        "config": {"data": {"source": "s3://lake/x.parquet", "split": {"by": "random", "test": 0.2}}, "features": None},
        "config_hash": "c" * 64,
        "code": {"git": "abc123", "files": {"my.py": "9" * 64}},
        "seed": 7,
        "estimator": "sklearn.linear_model.LogisticRegression",
        "params": {"C": 0.5, "penalty": None},
        "seconds": 1.234,
        "warnings": ["ConvergenceWarning: not there yet"],
        "about": {"owner": "ops-ml", "description": "Says which flights will be late."},
        "run": {"dag_id": "flights__train", "run_id": "manual__1"},
        **changes,
    }


EVALUATION = {
    "champion": 2,
    "rows": 200,
    "metrics": {
        "roc_auc": {"name": "roc_auc", "lower_is_better": False, "candidate": 0.71234, "candidate_low": 0.65,
                    "candidate_high": 0.75, "champion": 0.7, "champion_low": None, "champion_high": None},
    },
}  # fmt: skip
GATES = {
    "verdict": "passed",
    "sentence": "All 1 gates passed.",
    "results": [{"verdict": "passed", "sentence": "roc_auc is 0.712, at least 0.62."}],
}


def cards(rec: dict[str, Any] | None = None, **kwargs: Any) -> tuple[str, str]:
    return model_card(rec or record(), EVALUATION, GATES, pipeline="flights", version=3, **kwargs)


@pytest.mark.parametrize(
    "text",
    [
        "flights, version 3", "Says which flights will be late.", "ops-ml", "1,000", "f" * 64, "2013-02-01", "0.7123",
        "0.6500 to 0.7500", "version 2", "roc_auc is 0.712, at least 0.62.", "carrier", "and 2 more", "air_time",
        "ConvergenceWarning", "c" * 64, "abc123", "3.11.9", "flights__train manual__1", "s3://lake/x.parquet",
        "python predict.py sample_input.csv --out predictions.csv", "by random, 20% held out", "1.2 s",
        "Approval: Approve, by Ada.", "price (3)",
    ],
)  # fmt: skip
def test_both_forms_tell_what_the_record_holds(text: str) -> None:
    for card in cards(
        approval={"by": "Ada", "answer": ["Approve"]}, profile={"columns": [{"name": "price", "nulls": 3}]}
    ):
        assert text in card


def test_a_question_that_timed_out_was_answered_by_nobody() -> None:
    for card in cards(approval={"by": None, "answer": ["Reject"]}):
        assert "Approval: Reject, by nobody: the question timed out." in card


def test_everything_is_escaped_and_the_page_loads_nothing() -> None:
    rec = record(about={"owner": EVIL, "description": EVIL}, warnings=[EVIL], estimator=EVIL)
    rec["schema"]["excluded"] = [{"name": EVIL, "why": EVIL}]
    markdown, html = cards(rec)
    assert "<script" not in markdown
    assert "<script" not in html
    assert "src=" not in html
    assert "href=" not in html
    assert "prefers-color-scheme: dark" in html
    HTMLParser().feed(html)


def test_markdown_tables_keep_their_columns() -> None:
    rec = record()
    rec["schema"]["excluded"] = [{"name": "a|b", "why": "two\nlines"}]
    markdown, _ = cards(rec)
    row = next(line for line in markdown.splitlines() if "a\\|b" in line)
    assert row == "| a\\|b | two lines |"
    lines = markdown.splitlines()
    header = lines.index("| Column | Why |")
    assert lines[header + 1] == "| --- | --- |"
    assert lines[header + 2] == row


def test_what_is_not_recorded_is_said() -> None:
    bare = {"schema": record()["schema"]}
    markdown, html = model_card(bare, {}, {}, pipeline="flights", version=1)
    for card in (markdown, html):
        assert "not recorded" in card
        assert "no description is recorded" in card
    assert "None" not in markdown


def test_own_types_and_feature_code_are_limits() -> None:
    rec = record()
    rec["config"]["features"] = {"callable": "my_pkg.features:build"}
    markdown, _ = cards(rec, foreign_types=["my_pkg.Own"])
    assert "--trust my_pkg.Own" in markdown
    assert "my_pkg.features:build" in markdown


# --- explanation, limits, cost ------------------------------------------------------------------------

IMPORTANCE = {
    "metric": "roc_auc", "lower_is_better": False, "rows": 2000, "of_rows": 9000, "columns": 60, "repeats": 5,
    "left_out": 58, "out_of_time": True, "why": None,
    "features": [{"name": "distance", "mean": 0.2, "std": 0.01}, {"name": "carrier", "mean": -0.02, "std": 0.03}],
}  # fmt: skip
COSTS = [
    {"task": "train.fit", "wall_seconds": 1800.0, "cpu_seconds": 3000.0, "peak_mb": 812.4, "run_id": "r",
     "price_per_hour": 4.0, "currency": "EUR"},
    {"task": "evaluate.score", "wall_seconds": 10.0, "cpu_seconds": 9.0, "peak_mb": 300.0, "run_id": "r"},
]  # fmt: skip
SEEN = {
    "columns": {"carrier": {"missing": 0}, "distance": {"missing": 4, "min": 31.0, "max": 4983.0}},
    "classes": [{"class": 0, "rows": 600}, {"class": 1, "rows": 200}],
    "target": None,
}
SLICED = {
    "verdict": "rejected",
    "sentence": "rejected: a slice",
    "holdout": {"use": 12, "limit": 20, "share": 0.004, "decided": 12},
    "results": [
        {"verdict": "rejected", "sentence": "a slice fails", "name": "roc_auc at_least 0.6 by carrier",
         "gate": {"metric": "roc_auc", "min_rows": 30}, "slices_too_small": 7,
         "slices": [{"column": "carrier", "value_of": "UA", "rows": 90, "value": 0.41, "verdict": "rejected"}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "of 9,000 holdout rows 2,000 were drawn", "58 of 60 columns were not looked at as the time was up",
        "Columns that say the same share their importance", "0.2000", "± 0.0100",
        "0: 600 (75.0%); 1: 200 (25.0%)", "31 to 4983", "it extrapolates",
        "Never missing in training, so that it has not learned what a gap means: carrier.",
        "take the holdout's rows as independent and like those to come", "carrier = UA", "0.41",
        "This holdout has decided 12 times, this one included",
        "7 slices with fewer than 30 rows were not judged (roc_auc at_least 0.6 by carrier).",
        "1,810.0 s by the clock, 3,009.0 s of processor time, at most 812 MB in one process; 2.00 EUR",
        "train.fit", "1,800.0 s",
    ],
)  # fmt: skip
def test_both_forms_explain_limit_and_count(text: str) -> None:
    for card in model_card(
        record(seen=SEEN), EVALUATION, SLICED, pipeline="flights", version=3, importance=IMPORTANCE, costs=COSTS
    ):
        assert text in unescape(card)


def unescape(card: str) -> str:
    return html_module.unescape(card)


def test_the_bars_grow_with_the_importance_and_run_left_below_zero() -> None:
    _, page = cards(importance=IMPORTANCE)
    boxes = [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)"', page)]
    assert len(boxes) == 2
    (zero, first), (left, second) = boxes
    assert first == pytest.approx(10 * second, abs=1)
    assert left + second == pytest.approx(zero, abs=0.2)
    assert zero + first <= 640
    assert "<script" not in page


def test_importance_that_says_nothing_says_why() -> None:
    markdown, _ = cards(importance={**IMPORTANCE, "features": [], "why": "the holdout has one class"})
    assert "could not be computed: the holdout has one class." in markdown
    markdown, _ = cards(importance={**IMPORTANCE, "features": []})
    assert "took longer than the time for it" in markdown
    zero = [{"name": "a", "mean": 0.0, "std": 0.0}]
    assert "<svg" in cards(importance={**IMPORTANCE, "features": zero})[1]


def test_of_a_private_column_there_is_the_name_alone() -> None:
    rec = record(seen=SEEN)
    rec["schema"]["features"][1]["private"] = True
    rec["config"]["data"]["private"] = ["distance", "name"]
    markdown, _ = cards(rec)
    assert "| distance | private | not shown | not shown |" in markdown
    assert "| Private columns | distance, name |" in markdown


def test_a_wide_model_has_a_bounded_card() -> None:
    rec = record()
    rec["schema"]["features"] = [{"name": f"x{i}", "kind": "number", "categories": None} for i in range(5000)]
    markdown, _ = cards(rec)
    assert "It reads 5000 columns." in markdown
    assert "4,800 more columns are not listed." in markdown
    assert "x4999" not in markdown


HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>', "a|b\n| --- |", "```\nrm",
    "![x](http://evil)", "[x](javascript:alert(1))", "*b* _i_ `c` ~~s~~ # h", "- item", "1. item", "&lt;b&gt;",
    "{{ 7 * 7 }}{% raw %}", "x\u202eknil\u2066", "\x00\x1b[31m", "]]>", "x" * 9000, "</svg><script>", "' onx='1",
]  # fmt: skip


def everywhere(name: str) -> tuple[str, str]:
    rec = record(
        about={"owner": name, "description": name}, warnings=[name], estimator=name, params={name: name},
        seen={"columns": {name: {"missing": 0, "min": 1.0, "max": 2.0}}, "classes": [{"class": name, "rows": 1}]},
        config={"data": {"source": name, "split": {"by": "random", "test": 0.2}, "private": [name]},
                "features": {"callable": name}},
        code={"git": name, "files": {name: name}}, run={"dag_id": name, "run_id": name},
    )  # fmt: skip
    rec["schema"] = {
        "features": [{"name": name, "kind": "category", "categories": [name]},
                     {"name": name, "kind": "number", "categories": None}],
        "target": name, "classes": [name, "b"], "positive": name, "excluded": [{"name": name, "why": name}],
    }  # fmt: skip
    line = {"verdict": name, "sentence": name, "name": name, "slices_too_small": 1, "gate": {},
            "slices": [{"column": name, "value_of": name, "rows": 3, "value": 0.1, "verdict": name}]}  # fmt: skip
    return model_card(
        rec, EVALUATION, {"verdict": name, "sentence": name, "results": [line]},
        {"columns": [{"name": name, "nulls": 2}]}, pipeline="flights", version=3, key=name,
        approval={"by": name, "answer": [name]}, foreign_types=[name], store=f"file:///{name}",
        importance={**IMPORTANCE, "features": [{"name": name, "mean": 0.1, "std": 0.1}], "why": name},
        costs=[{**COSTS[0], "task": name, "currency": name}],
    )  # fmt: skip


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def tags(text: str) -> list[tuple[str, tuple[str, ...]]]:
    parser = Tags()
    parser.feed(text)
    parser.close()
    return parser.found


def shape(markdown: str) -> list[str]:
    """Lines by what they are to a Markdown reader, code apart."""
    kinds, fenced = [], False
    for line in markdown.splitlines():
        if line.startswith("```"):
            fenced = not fenced
            kinds.append("fence")
        elif not fenced and line:
            kind = re.match(r"#+ |\||[-+*] |\d+[.)] |=+$|>|    ", line)
            cells = len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) if line.startswith("|") else 0
            kinds.append(f"{re.sub(r'[0-9]', '', kind[0]) if kind else 'text'}{cells}")
    return kinds


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_change_neither_page_nor_table(name: str) -> None:
    markdown, page = everywhere(name)
    plain_markdown, plain_page = everywhere("harmless")
    assert tags(page) == tags(plain_page)
    assert shape(markdown) == shape(plain_markdown)
    outside = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    assert tags(outside) == []
    for card in (markdown, page):
        assert "\u202e" not in card
        assert "\x1b" not in card
        assert "\x00" not in card
        assert len(card) < 200_000


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_name_keeps_the_form(name: str) -> None:
    markdown, page = everywhere(f"n{name}")
    assert tags(page) == tags(everywhere("harmless")[1])
    outside = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    assert tags(outside) == []


# --- how to load it -----------------------------------------------------------------------------------


def test_what_the_card_says_about_loading_works(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "it's a store")
    frame = pd.DataFrame({"distance": [1.0, 2.0, 3.0, 4.0] * 5})
    model = LogisticRegression().fit(frame, [0, 0, 1, 1] * 5)
    rec = record(model=store_model(store, model))
    rec["schema"]["features"] = [{"name": "distance", "kind": "number", "categories": None}]
    version = Registry(store, "flights").register(rec, op_id="1")
    markdown, page = card_of(version, store)
    code = re.search(r"```python\n(.*?)```", markdown, re.DOTALL)
    assert code is not None
    assert code[1].strip() in unescape(page)
    names: dict[str, Any] = {}
    exec(code[1], names)
    assert names["predict"](pd.DataFrame({"distance": ["1", "4"], "other": [1, 2]})).tolist() == [0, 1]


def test_a_version_that_is_not_registered_has_nothing_to_load() -> None:
    markdown, _ = model_card(record(), EVALUATION, GATES, pipeline="flights", version=0, store="file:///x")
    assert "flights, not registered" in markdown
    assert "How to load it" not in markdown


def test_a_model_of_a_fleet_is_loaded_by_its_key() -> None:
    markdown, _ = cards(key="JFK'; import os", store="file:///x", foreign_types=["my.Type"])
    code = re.search(r"```python\n(.*?)```", markdown, re.DOTALL)
    assert code is not None
    calls = [node for node in ast.walk(ast.parse(code[1])) if isinstance(node, ast.Constant)]
    assert "JFK'; import os" in [node.value for node in calls]
    assert "trusted=['my.Type']" in code[1]


def test_a_kept_card_is_read_back_by_its_note(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    rec = record(model=store_model(store, LogisticRegression()))
    registry = Registry(store, "flights")
    number = registry.register(rec, op_id="1").number
    registry.annotate(number, "evaluation", {**EVALUATION, "importance": "0" * 64}, op_id="2")
    for i, cost in enumerate(COSTS):
        registry.annotate(number, "cost", cost, op_id=f"cost {i}")
    note, page = keep_card(registry.get(number), store)
    assert get_blob(store, note["html"]).decode() == page
    markdown = get_blob(store, note["markdown"]).decode()
    assert "1,810.0 s by the clock" in markdown
    assert "## What it looks at\n\nNot recorded." in markdown  # the blob is gone
