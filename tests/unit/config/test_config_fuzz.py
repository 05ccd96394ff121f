"""Whatever happens to a file, the loader answers with a pipeline or with issues that are in the file."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from airflow_mlops.config import InvalidPipeline, load_text
from airflow_mlops.config.yaml_source import parse

VALID = """\
# yaml-language-server: $schema=./mlops.schema.json
schema: 1
pipeline: flight_delays
level: 1
owner: ops-ml
task: classification
dag: {start_date: 2013-01-01, timezone: UTC, catchup: false, max_active_runs: 1, tags: [flights], default_args: {}}
resources: &small {pool: ml, timeout: 2h}
data:
  source: "s3://lake/flights/{{ window.start }}.parquet"
  window: 90d
  target: delayed
  positive: 1
  id: flight_id
  timestamp: scheduled_departure
  exclude: [dep_time, air_time]
  fresh_within: 26h
  max_row_drop: 0.5
  split: {by: time, test: 0.2}
validate:
  schema: infer
  expectations:
    - expect_column_values_to_be_between: {column: distance, min_value: 0, max_value: 6000, mostly: 0.999}
  on_failure: block
features: {callable: "my_pkg.features:build"}
train:
  estimator: sklearn.ensemble.HistGradientBoostingClassifier
  params: {max_iter: 200}
  search: {strategy: random, n_iter: 20, metric: roc_auc, cv: 3, space: {learning_rate: [0.03, 0.1, 0.3]}}
  resources: *small
evaluate:
  metrics: [roc_auc, log_loss]
  gates:
    - {metric: roc_auc, at_least: 0.62}
    - {metric: roc_auc, versus: champion, not_worse_by: 0.005, confidence: 0.95}
    - metric: roc_auc
      at_least: 0.55
      slices: [carrier]
      min_rows: 200
    - {serving: {p95_ms: 20, max_mb: 200, rows: 50}}
approve: {required: false, by: [ml-lead], timeout: 48h, on_timeout: reject}
deploy:
  batch: {source: "s3://lake/scoring/{{ window.start }}.parquet", output: "s3://lake/out/", schedule: "@daily"}
monitor:
  labels: {source: "s3://lake/outcomes/{{ window.start }}.parquet", join_on: flight_id, delay: 1d}
  drift: {min_rows: 30, effect: 0.1, alpha: 0.05, correction: bonferroni}
  performance: {metric: roc_auc, max_drop: 0.03}
  max_age: 30d
retrain:
  schedule: "@weekly"
  when: [new_data, drift, performance, staleness]
  cooldown: 7d
  max_per_month: 4
notify: {events: [failed, rejected], notifiers: [{class: my.Notifier, args: {to: a}}]}
"""

PIECES = st.sampled_from(
    ["{", "}", "[", "]", ": ", "- ", "? ", ",", "#", "'", '"', "|\n", ">\n", "&a ", "*a", "*small", "!!x ", "<<: ",
     "\n", "\n  ", "\t", "\0", "---\n", "...\n", "%", "@", "~", "no", ".nan", "1e999", "0x", "1.10", "{{", "}}",
     "{% if %}", "{{ 9**9**9 }}", "{{ a(b) }}", "\u2028", "\ufeff", "\ud800", "\x85", "😀", "null", "9" * 40, "0d",
     "* * * * *", "[[[[[[["]
)  # fmt: skip
COMMON = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


def check(text: str) -> None:
    try:
        load_text(text, "p.yaml")
    except InvalidPipeline as e:
        error = e
    else:
        return
    assert error.issues
    assert str(error)
    lines = BREAK.split(text.removeprefix("\ufeff"))
    for issue in error.issues:
        assert 1 <= issue.line <= len(lines)
        assert issue.text == lines[issue.line - 1]
        assert 1 <= issue.column <= len(issue.text) + 1
        assert issue.message


def test_the_valid_file_is_valid() -> None:
    load_text(VALID)


@pytest.mark.timeout(120)
@COMMON
@given(
    st.lists(
        st.tuples(st.integers(0, len(VALID)), st.integers(0, 12), PIECES | st.text(max_size=5)), min_size=1, max_size=4
    )
)
def test_edited_text(edits: list[tuple[int, int, str]]) -> None:
    text = VALID
    for start, length, new in edits:
        text = text[:start] + new + text[start + length :]
    check(text)


@pytest.mark.timeout(120)
@COMMON
@given(st.lists(st.tuples(st.integers(0, VALID.count("\n") - 1), st.sampled_from("dsni")), min_size=1, max_size=5))
def test_edited_lines(edits: list[tuple[int, str]]) -> None:
    lines = VALID.splitlines()
    for number, what in edits:
        number %= max(1, len(lines))
        if what == "d":
            del lines[number]
        elif what == "s":
            lines[number], lines[-1] = lines[-1], lines[number]
        elif what == "n":
            lines[number] = "  " + lines[number]
        else:
            lines.insert(number, lines[-1])
    check("\n".join(lines))


def _spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [spot for key, child in children for spot in _spots(child, (*path, key))]


DATA = yaml.safe_load(VALID) | {"dag": {"start_date": "2013-01-01"}}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | PIECES.filter(str.isprintable),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.timeout(120)
@COMMON
@given(st.lists(st.tuples(st.sampled_from(_spots(DATA)), VALUES), min_size=1, max_size=4))
def test_any_value_at_any_key(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    data = yaml.safe_load(yaml.safe_dump(DATA))
    for path, new in changes:
        holder = data
        for step in path[:-1]:
            try:
                holder = holder[step]
            except (KeyError, IndexError, TypeError):
                break
        else:
            if isinstance(holder, dict) or (isinstance(holder, list) and path[-1] in range(len(holder))):
                holder[path[-1]] = new
    check(yaml.safe_dump(data, allow_unicode=True))


@COMMON
@given(st.text(max_size=60) | st.lists(PIECES, max_size=12).map("".join))
def test_any_text(text: str) -> None:
    check(text)


@COMMON
@given(VALUES.filter(lambda v: v is not None))
def test_what_json_can_say_is_read_as_json_does(value: Any) -> None:
    """The core schema and JSON agree."""
    text = json.dumps({"a": value}, ensure_ascii=True)
    assume("NaN" not in text and "Infinity" not in text)  # Python's own, not JSON's
    source = parse(text, "p.json")
    if not source.issues:
        assert json.dumps(source.data) == text
