"""The starter file: whatever the data's names and values are, it reads back as exactly them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config import PipelineConfig, load_text
from airflow_mlops.config.settings import Settings
from airflow_mlops.config.starter import Bar, Findings, scalar, starter
from airflow_mlops.config.yaml_source import parse

FOUND = Findings(
    rows=1234,
    columns=5,
    complete=True,
    target="y",
    task="classification",
    estimator="sklearn.linear_model.LogisticRegression",
    params={"max_iter": 1000},
    metrics=("roc_auc", "log_loss"),
    bar=Bar("roc_auc", 0.5, "a model that knows nothing"),
    classes=2,
)

# What a CSV or Parquet file can hold: any Unicode but lone surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20) | st.sampled_from(
    ["a: b", "- a", "# a", "{{ window.start }}", "{% x %}", "${env:HOME}", "${conn:x}", "$${", "$$", "${", "a}", "*x",
     "&x", "!!int", "null", "NULL", "~", "true", "no", "Off", "1", "1.5", "0x1", ".inf", "2024-01-01", "<<", "=", "'",
     '"', "\\", "\\n", "a\nb", "a\n\n# b", "\r", "\t", "\0", "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe", " a ", "😀",
     "?", "[", "a,b", "@a", "`a", "%a", "|", ">", "---", "..."]
)  # fmt: skip
VALUES = TEXTS | st.integers(-(10**15), 10**15) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)


def read(found: Findings, level: int = 1, source: str = "a.csv", head: tuple[str, ...] = ("Hello.",)) -> PipelineConfig:
    return load_text(starter("a", level, source, found, head), "a.yaml", Settings(allowed_variables=()))


def with_(**changes: Any) -> Findings:
    return dataclasses.replace(FOUND, **changes)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_a_value_reads_back_as_itself(value: Any) -> None:
    from airflow_mlops.config.layers import Layers

    source = Layers(Settings(allowed_variables=())).layered(parse(f"k: {{v: [{scalar(value)}]}}\n", "a.yaml"), None)
    assert source.issues == []
    (result,) = source.data["k"]["v"]
    assert result == value
    assert type(result) is type(value)
    assert "\n" not in scalar(value)


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, min_size=9, max_size=9, unique=True), VALUES, st.sampled_from([0, 1]), st.booleans())
def test_any_names_and_values(names: list[str], value: Any, level: int, by_time: bool) -> None:
    target, id_, stamp, leak, other, time, unused, head, why = names
    positive = value if isinstance(value, (str, int)) else None
    expectation = ("expect_column_values_to_be_in_set", {"column": leak, "value_set": [value, other]})
    found = with_(
        target=target, id=id_, timestamp=stamp, positive=positive, share=0.25, leaks=(leak,), candidates=(other,),
        times=(time,), unused={unused: f"has {why}"}, days=12, newest="2024-01-01", by_time=by_time, index=other,
        expectations=(expectation,), missing=3,
    )  # fmt: skip
    config = read(found, level, head=(head,))
    assert (config.data.target, config.data.id, config.data.timestamp) == (target, id_, stamp)
    assert config.data.positive == positive
    assert config.data.exclude == []
    assert config.validate_.expectations == [dict([expectation])]
    assert config.level == level


def test_what_is_said_in_comments_can_be_taken_over() -> None:
    found = with_(leaks=("told: later",), id="n")
    text = starter("a", 1, "a.csv", found, ())
    assert load_text(text.replace("  # exclude", "  exclude")).data.exclude == ["told: later"]
    watched = load_text(text.replace("  # labels", "  labels").replace("  # performance", "  performance")).monitor
    assert watched is not None
    assert watched.labels is not None
    assert (watched.labels.join_on, watched.performance.metric) == ("n", "roc_auc")
    by_hand = starter("a", 0, "a.csv", found, ())
    below = by_hand.replace("# deploy:", "deploy:").replace("#   batch", "  batch")
    assert load_text(below).deploy.batch.source == "rows_to_score.csv"


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("complete", [True, False])
def test_regression_and_little_data(level: int, complete: bool) -> None:
    bar = Bar("r2", 0.0, "a model that always predicts the mean")
    found = with_(task="regression", classes=None, estimator="sklearn.linear_model.Ridge", params={}, rows=30,
                  complete=complete, metrics=("r2", "rmse"), bar=bar)  # fmt: skip
    config = read(found, level)
    assert (config.task, config.data.min_rows, config.evaluate.gates[0].at_least) == ("regression", 15, 0.0)
    assert config.schema_ == 1


def test_lines_are_not_long() -> None:
    found = with_(
        candidates=tuple(f"column {i}" for i in range(50)), unused={f"c{i}": "is all the same" for i in range(50)}
    )
    text = starter("a", 1, "a.csv", found, ("word " * 60,))
    assert max(len(line) for line in text.splitlines()) <= 110


def test_a_level_1_file_has_its_parts_and_says_why() -> None:
    text = starter("a", 1, "a.csv", FOUND, ())
    for key in ("deploy:", "monitor:", "retrain:", "gates:", "schedule:", "versus: champion"):
        assert key in text
    assert sum("# " in line for line in text.splitlines()) > 20


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), b"x", {"a": 1}])
def test_what_yaml_does_not_have(value: Any) -> None:
    with pytest.raises(TypeError):
        scalar(value)
