from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from airflow_mlops.ml.card import model_card

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
