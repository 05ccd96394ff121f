from __future__ import annotations

import ast
import datetime as dt
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Data, Validate
from airflow_mlops.exceptions import ExpectationError, ObjectNotFound, SchemaSkew, TargetError, ValidationFailed
from airflow_mlops.ml.expectations import _condition_columns, crash_of
from airflow_mlops.ml.snapshot import write_snapshots
from airflow_mlops.ml.validation import validate
from airflow_mlops.store import LocalStore, get_json, layout

BETWEEN = "expect_column_values_to_be_between"


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def snapshot(store, **columns):
    n = 100
    values = {
        "x": [float(i) for i in range(n)],
        "c": ["a", "b"] * (n // 2),
        "t": [dt.datetime(2024, 1, 1) + dt.timedelta(days=i) for i in range(n)],
        "y": [0, 1] * (n // 2),
        **columns,
    }
    table = pa.table({k: v for k, v in values.items() if v is not None})
    batches = ((b,) for b in table.to_batches(max_chunksize=30))
    return write_snapshots(store, "p", batches, table.schema, window=None, sources=[{"kind": "files", "uri": "x"}])[0]


def config(*expectations, **more):
    return Validate.model_validate({"expectations": list(expectations), **more})


def data(**more):
    return Data.model_validate({"source": "x", "target": "y", "min_rows": 10, **more})


def test_good_data_passes_and_locks_the_schema(store):
    result = validate(
        snapshot(store),
        store,
        config(
            {BETWEEN: {"column": "x", "min_value": 0, "max_value": 200}},
            {BETWEEN: {"column": "t", "min_value": "2024-01-01", "max_value": dt.date(2025, 1, 1)}},
            {"expect_table_row_count_to_be_between": {"min_value": 100}},
            {"expect_column_to_exist": {"column": "c"}},
            {"expect_table_columns_to_match_set": {"column_set": ["x", "c", "t", "y"]}},
            {
                BETWEEN: {
                    "column": "x",
                    "max_value": 50,
                    "row_condition": "x < 40 and c == 'a'",
                    "condition_parser": "pandas",
                }
            },
        ),
        data(),
    )
    assert result.success
    assert not result.blocked
    assert result.sentence == "all 8 checks passed"
    assert result.failed == ()
    result.check()
    assert json.loads(store.get(layout.schema("p")))["columns"] == {
        "x": "number",
        "c": "text",
        "t": "time",
        "y": "number",
    }
    stored = get_json(store, result.json)
    assert len(stored["result"]["results"]) == 6


def test_block_says_what_and_how_many(store):
    result = validate(
        snapshot(store), store, config({BETWEEN: {"column": "x", "min_value": 0, "max_value": 89}}), data()
    )
    (failed,) = result.failed
    assert (failed.column, failed.unexpected_count, failed.unexpected_percent) == ("x", 10, 10.0)
    assert failed.examples == ("90.0", "91.0", "92.0", "93.0", "94.0")
    assert failed.rows == (91, 92, 93, 94, 95)
    with pytest.raises(ValidationFailed, match=r"1 of 3 checks failed: .* on x: 10 unexpected \(10 %\), such as 90.0"):
        result.check()
    with pytest.raises(ObjectNotFound):
        store.get(layout.schema("p"))


def test_warn_goes_on(store):
    result = validate(
        snapshot(store), store, config({BETWEEN: {"column": "x", "max_value": 1}}, on_failure="warn"), data()
    )
    assert (result.success, result.blocked) == (False, False)
    assert "warn" in result.sentence


def test_severity_below_critical_does_not_block(store):
    entry = {BETWEEN: {"column": "x", "max_value": 1, "severity": "warning"}}
    result = validate(snapshot(store), store, config(entry), data())
    assert (result.success, result.blocked, len(result.failed)) == (True, False, 1)


def test_quarantine_sets_failing_rows_aside(store):
    whole = snapshot(store)
    result = validate(
        whole,
        store,
        config(
            {BETWEEN: {"column": "x", "max_value": 94}},
            {BETWEEN: {"column": "x", "min_value": 1}},
            {"expect_column_values_to_be_in_set": {"column": "c", "value_set": ["a", "b"]}},
            on_failure="quarantine",
        ),
        data(),
    )
    assert not result.blocked
    assert result.quarantined is not None
    assert result.quarantined.to_pandas(store).x.tolist() == [0.0, 95.0, 96.0, 97.0, 98.0, 99.0]
    assert result.snapshot.to_pandas(store).x.tolist() == [float(i) for i in range(1, 95)]
    assert result.statistics["quarantined"] == 6
    assert result.snapshot.source["from"] == whole.digest
    assert "6 rows quarantined, 94 go on" in result.sentence


def test_quarantine_does_not_hide_a_wrong_whole(store):
    entries = (
        {BETWEEN: {"column": "x", "max_value": 94}},
        {"expect_column_mean_to_be_between": {"column": "x", "max_value": 1}},
    )
    result = validate(snapshot(store), store, config(*entries, on_failure="quarantine"), data())
    assert result.blocked
    assert result.quarantined is None
    assert "not only single rows" in result.sentence


def test_quarantine_must_leave_enough(store):
    entry = {BETWEEN: {"column": "x", "max_value": 4}}
    result = validate(snapshot(store), store, config(entry, on_failure="quarantine"), data())
    assert result.blocked
    assert "without the rows at fault 5 are left, and 10 are needed" in result.sentence
    entry = {"expect_column_values_to_be_in_set": {"column": "y", "value_set": [1]}}
    with pytest.raises(TargetError, match="constant"):
        validate(snapshot(store), store, config(entry, on_failure="quarantine"), data())


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"expect_column_values_to_be_betwen": {"column": "x"}}, f"did you mean {BETWEEN}"),
        ({"expect_moon": {}}, "no such expectation"),
        ({BETWEEN: {"column": "xs", "min_value": 1}}, "no column 'xs'; did you mean 'x'"),
        ({BETWEEN: {"column": "x", "min_valu": 1}}, "no 'min_valu' here; did you mean 'min_value'"),
        ({BETWEEN: {"column": "x"}}, "cannot both be None"),
        ({BETWEEN: {"column": "x", "min_value": 1, "result_format": "COMPLETE"}}, "no 'result_format' here"),
        ({BETWEEN: {"column": "c", "min_value": 1}}, "on c could not be evaluated: .*same type"),
        ({"expect_column_mean_to_be_between": {"column": "c", "min_value": 1}}, "could not be evaluated"),
        ({"expect_column_values_to_match_regex": {"column": "c", "regex": "("}}, "could not be evaluated"),
        (
            {BETWEEN: {"column": "x", "min_value": 1, "row_condition": "@x", "condition_parser": "pandas"}},
            "cannot be read",
        ),
        ({BETWEEN: {"column": "x", "min_value": 1, "row_condition": "q > 1"}}, "no column 'q'"),
    ],
)
def test_wrong_expectations_are_not_bad_data(store, entry, said):
    with pytest.raises(ExpectationError, match=said) as e:
        validate(snapshot(store), store, config(entry), data())
    assert "number 1" in str(e.value)


@pytest.mark.parametrize(
    "code", ["x.to_csv('f')", "__import__('os')", "x[0]", "(lambda: 1)()", "[i for i in x]", "x.a > 1", "`x`"]
)
def test_row_conditions_are_not_code(code):
    with pytest.raises(ExpectationError):
        _condition_columns(code, "here")


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_row_condition_is_names_or_an_error(text):
    try:
        _condition_columns(text, "here")
    except ExpectationError:
        return
    assert not any(
        isinstance(n, (ast.Call, ast.Attribute, ast.Subscript)) for n in ast.walk(ast.parse(text, mode="eval"))
    )


def test_both_shapes_of_acrash_of():
    assert crash_of({"raised_exception": True, "exception_message": "boom"}) == "boom"
    assert crash_of({"metric": {"raised_exception": True, "exception_message": "boom"}}) == "boom"
    assert crash_of({"raised_exception": False}) is None
    assert crash_of({}) is None


def test_labels_and_rows_are_always_checked(store):
    made = snapshot(store, y=[0, None] * 50)
    result = validate(made, store, config(), data())
    assert result.blocked
    assert result.failed[0].expectation == "target is not null"
    assert (result.failed[0].unexpected_count, result.failed[0].rows[:2]) == (50, (2, 4))


def test_all_null_column_does_not_pass_for_good(store):
    made = snapshot(store, x=pa.nulls(100, pa.float64()))
    result = validate(made, store, config({"expect_column_values_to_not_be_null": {"column": "x"}}), data())
    assert result.failed[0].unexpected_count == 100


def test_rows_without_outcome(store):
    validate(snapshot(store), store, config(), data())
    made = snapshot(store, y=None)
    entry = {"expect_column_values_to_be_in_set": {"column": "y", "value_set": [0, 1]}}
    result = validate(made, store, config(entry), data(), target_optional=True)
    assert result.success
    assert result.statistics["waiting"] == 1
    assert "expect_column_values_to_be_in_set" in result.html
    with pytest.raises(SchemaSkew, match="'y' is missing"):
        validate(made, store, config(), data())


def test_report_is_self_contained_and_escaped(store):
    evil = "<script>alert(1)</script>"
    made = snapshot(store, c=[evil, "b"] * 50)
    entry = {"expect_column_values_to_be_in_set": {"column": "c", "value_set": ["b", "<b>"]}}
    html = validate(made, store, config(entry), data()).html
    assert evil not in html
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "http" not in html
    assert "prefers-color-scheme: dark" in html
