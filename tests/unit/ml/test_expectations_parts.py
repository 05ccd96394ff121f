from __future__ import annotations

import datetime as dt
import tempfile

import numpy as np
import pyarrow as pa
import pytest
from great_expectations.expectations import registry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Data, Validate
from airflow_mlops.exceptions import ExpectationError
from airflow_mlops.ml import expectations_parts as parts
from airflow_mlops.ml import frames as frames_module
from airflow_mlops.ml.expectations import build, run, unexpected_rows
from airflow_mlops.ml.frames import frames
from airflow_mlops.ml.schema import family
from airflow_mlops.ml.snapshot import write_snapshots
from airflow_mlops.ml.validation import validate
from airflow_mlops.store import LocalStore, get_json

ROWS, BATCH = 60, 25
rng = np.random.default_rng(3)


def gaps(values, every):
    return [None if i % every == 0 else v for i, v in enumerate(values)]


# The second batch of rows has no value at all in `late`, and no gap in the others.
TABLE = pa.table(
    {
        "n": pa.array([float(v) for v in rng.normal(size=ROWS)]),
        "m": pa.array(gaps([float(v) for v in rng.integers(0, 9, ROWS)], 7)),
        "i": pa.array(list(range(ROWS))),
        "k": pa.array(gaps([int(v) for v in rng.integers(0, 5, ROWS)], 11), pa.int64()),
        "b": pa.array(gaps([bool(v) for v in rng.integers(0, 2, ROWS)], 17)),
        "c": pa.array(gaps([f"c{v}" for v in rng.integers(0, 4, ROWS)], 9)),
        "u": pa.array([f"u{v}" for v in range(ROWS)]),
        "late": pa.array([None if BATCH <= i < 2 * BATCH else f"2024-01-{i % 28 + 1:02d}" for i in range(ROWS)]),
        "j": pa.array(['{"a": 1}' if v else "no" for v in rng.integers(0, 2, ROWS)]),
        "s": pa.array(['{"a": 1}' if v else '{"b": 2}' for v in rng.integers(0, 2, ROWS)]),
        "t": pa.array([dt.datetime(2024, 1, 1) + dt.timedelta(hours=i % 50) for i in range(ROWS)], pa.timestamp("us")),
        "z": pa.array(
            [dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=i) for i in range(ROWS)],
            pa.timestamp("us", "UTC"),
        ),
        "d": pa.array([dt.date(2024, 1, 1) + dt.timedelta(days=i // 2) for i in range(ROWS)]),
    }
)
CONDITION = {"row_condition": "k < 3 and c != 'c1'", "condition_parser": "pandas"}
JSON_SCHEMA = {"type": "object", "required": ["a"]}
SUITE = [
    {"expect_column_distinct_values_to_be_in_set": {"column": "c", "value_set": ["c0", "c1"]}},
    {"expect_column_distinct_values_to_contain_set": {"column": "c", "value_set": ["c0", "c9"]}},
    {"expect_column_distinct_values_to_equal_set": {"column": "k", "value_set": [0, 1, 2, 3, 4]}},
    {
        "expect_column_kl_divergence_to_be_less_than": {
            "column": "c",
            "partition_object": {"values": ["c0", "c1", "c2", "c3"], "weights": [0.25] * 4},
            "threshold": 0.5,
        }
    },
    {"expect_column_max_to_be_between": {"column": "n", "max_value": 2}},
    {"expect_column_mean_to_be_between": {"column": "n", "min_value": -1e-3, "max_value": 1}},
    {"expect_column_max_to_be_between": {"column": "late", "max_value": "2024-01-20"}},
    {"expect_column_distinct_values_to_equal_set": {"column": "c", "value_set": ["c0", "c2", "c3"], **CONDITION}},
    {"expect_column_mean_to_be_between": {"column": "n", "min_value": -1, **CONDITION}},
    {"expect_column_median_to_be_between": {"column": "m", "min_value": 5}},
    {"expect_column_min_to_be_between": {"column": "t", "min_value": "2024-01-01"}},
    {"expect_column_most_common_value_to_be_in_set": {"column": "c", "value_set": ["c0"]}},
    {"expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "m", "column_B": "n", "mostly": 0.5}},
    {"expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "k", "column_B": "i", "or_equal": True}},
    {"expect_column_pair_values_to_be_equal": {"column_A": "k", "column_B": "m", "ignore_row_if": "neither"}},
    {"expect_column_pair_values_to_be_in_set": {"column_A": "k", "column_B": "c", "value_pairs_set": [[1, "c1"]]}},
    {"expect_column_proportion_of_non_null_values_to_be_between": {"column": "late", "min_value": 0.9}},
    {"expect_column_proportion_of_unique_values_to_be_between": {"column": "c", "max_value": 0.01}},
    {
        "expect_column_quantile_values_to_be_between": {
            "column": "n",
            "quantile_ranges": {"quantiles": [0.1, 0.9], "value_ranges": [[-9, 9], [-9, 0]]},
        }
    },
    {"expect_column_stdev_to_be_between": {"column": "n", "min_value": 0, "max_value": 0.1}},
    {"expect_column_sum_to_be_between": {"column": "n", "min_value": 100}},
    {"expect_column_to_exist": {"column": "u"}},
    {"expect_column_to_exist": {"column": "gone"}},
    {"expect_column_type_to_be": {"column": "k", "type_": "int64"}},
    {"expect_column_unique_value_count_to_be_between": {"column": "u", "max_value": 5}},
    {"expect_column_value_lengths_to_be_between": {"column": "u", "min_value": 3}},
    {"expect_column_value_lengths_to_equal": {"column": "late", "value": 10}},
    {"expect_column_value_z_scores_to_be_less_than": {"column": "n", "threshold": 1, "double_sided": True}},
    {"expect_column_values_to_be_between": {"column": "n", "min_value": -1, "max_value": 1, "mostly": 0.6}},
    {"expect_column_values_to_be_between": {"column": "k", "min_value": 1, **CONDITION}},
    {"expect_column_values_to_be_between": {"column": "k", "max_value": 9, "row_condition": "k > 7", **CONDITION}},
    {"expect_column_values_to_be_between": {"column": "z", "min_value": "2024-01-02T00:00:00+01:00"}},
    {"expect_column_values_to_be_between": {"column": "d", "min_value": "2024-01-10"}},
    {"expect_column_values_to_be_dateutil_parseable": {"column": "late"}},
    {"expect_column_values_to_be_decreasing": {"column": "i"}},
    {"expect_column_values_to_be_in_set": {"column": "c", "value_set": ["c0", "c1"], "severity": "warning"}},
    {"expect_column_values_to_be_in_type_list": {"column": "b", "type_list": ["int", "str"]}},
    {"expect_column_values_to_be_in_type_list": {"column": "n", "type_list": ["int64"]}},
    {"expect_column_values_to_be_increasing": {"column": "m"}},
    {"expect_column_values_to_be_json_parseable": {"column": "j"}},
    {"expect_column_values_to_be_null": {"column": "late", "mostly": 0.5}},
    {"expect_column_values_to_be_of_type": {"column": "k", "type_": "float64"}},
    {"expect_column_values_to_be_of_type": {"column": "b", "type_": "bool"}},
    {"expect_column_values_to_be_of_type": {"column": "u", "type_": "str"}},
    {"expect_column_values_to_be_unique": {"column": "m"}},
    {"expect_column_values_to_be_unique": {"column": "late", "mostly": 0.1}},
    {"expect_column_values_to_be_unique": {"column": "z"}},
    {"expect_column_values_to_be_unique": {"column": "b"}},
    {"expect_column_values_to_be_unique": {"column": "c", **CONDITION}},
    {"expect_column_values_to_match_json_schema": {"column": "s", "json_schema": JSON_SCHEMA, **CONDITION}},
    {"expect_column_values_to_match_regex": {"column": "late", "regex": "-0"}},
    {"expect_column_values_to_match_regex_list": {"column": "u", "regex_list": ["1", "2"], "match_on": "any"}},
    {"expect_column_values_to_match_strftime_format": {"column": "late", "strftime_format": "%Y-%m-%d"}},
    {"expect_column_values_to_not_be_in_set": {"column": "k", "value_set": [1]}},
    {"expect_column_values_to_not_be_null": {"column": "late", "mostly": 0.9}},
    {"expect_column_values_to_not_be_null": {"column": "m", **CONDITION}},
    {"expect_column_values_to_not_be_outliers": {"column": "n", "method": "iqr", "multiplier": 0.5}},
    {"expect_column_values_to_not_match_regex": {"column": "u", "regex": "5"}},
    {"expect_column_values_to_not_match_regex_list": {"column": "u", "regex_list": ["5", "6"]}},
    {"expect_compound_columns_to_be_unique": {"column_list": ["c", "k"]}},
    {"expect_compound_columns_to_be_unique": {"column_list": ["c", "t"], "ignore_row_if": "any_value_is_missing"}},
    {"expect_compound_columns_to_be_unique": {"column_list": ["k", "m"], "ignore_row_if": "never", "mostly": 0.1}},
    {"expect_multicolumn_sum_to_equal": {"column_list": ["k", "m"], "sum_total": 5}},
    {"expect_multicolumn_values_to_be_equal": {"column_list": ["k", "m"]}},
    {"expect_select_column_values_to_be_unique_within_record": {"column_list": ["k", "m"], "mostly": 0.5}},
    {"expect_table_column_count_to_be_between": {"min_value": 20}},
    {"expect_table_column_count_to_equal": {"value": 12}},
    {"expect_table_columns_to_match_ordered_list": {"column_list": ["n", "m"]}},
    {"expect_table_columns_to_match_set": {"column_set": ["n", "m"], "exact_match": False}},
    {"expect_table_row_count_to_be_between": {"max_value": 10}},
    {"expect_table_row_count_to_equal": {"value": ROWS}},
    {"expect_table_row_count_to_be_between": {"max_value": 10, **CONDITION}},
]
# Great Expectations has none of these on DataFrames.
FAILING = [
    {"expect_column_values_to_match_like_pattern": {"column": "u", "like_pattern": "u%"}},
    {"expect_column_values_to_not_match_like_pattern": {"column": "u", "like_pattern": "u%"}},
    {"expect_column_values_to_match_like_pattern_list": {"column": "u", "like_pattern_list": ["u%"]}},
    {"expect_column_values_to_not_match_like_pattern_list": {"column": "u", "like_pattern_list": ["u%"]}},
    {
        "expect_query_results_to_match_comparison": {
            "base_query": "SELECT 1", "comparison_data_source_name": "x", "comparison_query": "SELECT 1",
        }
    },
    {"expect_table_row_count_to_equal_other_table": {"other_table_name": "x"}},
    {"expect_column_values_to_be_between": {"column": "u", "min_value": 3}},
    {"expect_column_mean_to_be_between": {"column": "u", "min_value": 3}},
    {"expect_column_max_to_be_between": {"column": "u", "min_value": 3}},
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return LocalStore(tmp_path_factory.mktemp("store"))


def written(store, table):
    batches = ((b,) for b in table.to_batches(max_chunksize=7))
    return write_snapshots(store, "p", batches, table.schema, window=None, sources=[{}])[0]


@pytest.fixture(scope="module")
def snapshot(store):
    return written(store, TABLE)


def suite_of(snapshot, entries):
    return build(entries, {n: family(t) for n, t in snapshot.columns.items()})


def plain(value):
    """A result without what a clock or a random number gave."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in ("meta", "id", "batch_id", "validation_time")}
    return [plain(v) for v in value] if isinstance(value, list) else value


def test_every_expectation_gives_in_batches_what_it_gives_of_all_rows(store, snapshot):
    suite = suite_of(snapshot, SUITE)
    checks, raw = run(suite, snapshot.to_pandas(store), private=["t"])
    with frames(snapshot, store, BATCH) as read:
        found, merged = parts.run(suite, read, private=["t"])
    assert len(checks) == len(SUITE)
    assert {c.success for c in checks} == {True, False}
    for name, one, other in zip(SUITE, checks, found, strict=True):
        assert one == other, name
    for one, other in zip(raw["results"], merged["results"], strict=True):
        assert plain(one) == plain(other)
    assert plain({**raw, "results": []}) == plain({**merged, "results": []})


def test_failing_rows_are_those_of_all_rows(store, snapshot, monkeypatch):
    suite = suite_of(snapshot, SUITE)
    frame = snapshot.to_pandas(store)
    bad = [e for e, c in zip(suite, run(suite, frame)[0], strict=True) if not c.success and c.row_level]
    assert len(bad) > 20
    expected = unexpected_rows(bad, frame)
    monkeypatch.setattr(parts, "MOST_VALUES", 2 * ROWS)
    with frames(snapshot, store, BATCH) as read:
        found = parts.failing_rows(bad, read)
    assert {n: r.tolist() for n, r in found.items()} == {n: r.tolist() for n, r in expected.items()}


def test_no_expectation_of_the_library_is_left_out():
    known = {n for n in registry.list_registered_expectation_implementations() if n.startswith("expect_")}
    library = {n for n in known if registry.get_expectation_impl(n).__module__.startswith("great_expectations.")}
    assert library == {next(iter(e)) for e in SUITE + FAILING}
    assert library >= parts._ROWS


@pytest.mark.parametrize("entry", FAILING, ids=lambda e: next(iter(e)))
def test_what_cannot_be_evaluated_says_the_same(store, snapshot, entry):
    suite = suite_of(snapshot, [entry])
    with pytest.raises(ExpectationError) as whole:
        run(suite, snapshot.to_pandas(store, list(suite[0].columns) or ["n"]))
    with frames(snapshot, store, BATCH) as read, pytest.raises(ExpectationError) as merged:
        parts.run(suite, read)
    assert str(merged.value) == str(whole.value)


MAPS = [
    {"expect_column_values_to_be_between": {"column": "x", "max_value": 2, "mostly": 0.7}},
    {"expect_column_values_to_be_in_set": {"column": "c", "value_set": ["a"], "mostly": 0.4}},
    {"expect_column_values_to_be_between": {"column": "i", "max_value": 1, "mostly": 0.5}},
    {"expect_column_values_to_be_of_type": {"column": "i", "type_": "int64"}},
    {"expect_column_values_to_not_be_null": {"column": "c", "mostly": 0.6}},
    {"expect_column_values_to_be_between": {"column": "x", "max_value": 1, "mostly": 0.7, "row_condition": "i > 0",
                                            "condition_parser": "pandas"}},
    {"expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "x", "column_B": "i", "mostly": 0.5}},
    {"expect_column_values_to_be_unique": {"column": "c", "mostly": 0.5}},
    {"expect_compound_columns_to_be_unique": {"column_list": ["x", "c"], "mostly": 0.5}},
]  # fmt: skip
VALUES = {
    "x": st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, 2.5])),
    "c": st.one_of(st.none(), st.sampled_from(["a", "b", "ab"])),
    "i": st.one_of(st.none(), st.integers(0, 3)),
}


@given(st.data())
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_add_up_however_they_are_cut(data):
    rows = data.draw(st.integers(2, 12))
    kinds = {"x": pa.float64(), "c": pa.string(), "i": pa.int64()}
    drawn = {n: pa.array(data.draw(st.lists(v, min_size=rows, max_size=rows)), kinds[n]) for n, v in VALUES.items()}
    batch = data.draw(st.integers(max(1, rows // 3), rows - 1))
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder)
        taken = written(store, pa.table(drawn))
        suite = suite_of(taken, MAPS)
        checks, raw = run(suite, frame := taken.to_pandas(store))
        with frames(taken, store, batch) as read:
            found, merged = parts.run(suite, read)
            assert found == checks
            assert plain(merged) == plain(raw)
            expected = unexpected_rows(suite, frame)
            rows_found = parts.failing_rows(suite, read)
            assert {n: r.tolist() for n, r in rows_found.items()} == {n: r.tolist() for n, r in expected.items()}


@pytest.mark.parametrize("batch", [2**18, 25])
def test_validation_of_parts_quarantines_the_same_rows(store, snapshot, batch, monkeypatch):
    monkeypatch.setattr(frames_module.frames.__wrapped__, "__defaults__", (batch,))
    entries = [
        {"expect_column_values_to_be_between": {"column": "n", "max_value": 1}},
        {"expect_column_values_to_be_unique": {"column": "t"}},
        {"expect_column_values_to_be_null": {"column": "late", "severity": "warning"}},
    ]
    config = Validate.model_validate({"schema": "off", "expectations": entries, "on_failure": "quarantine"})
    result = validate(snapshot, store, config, Data.model_validate({"source": "x", "target": "i", "min_rows": 5}))
    frame = snapshot.to_pandas(store)
    bad = (frame["n"] > 1) | frame["t"].duplicated(keep=False)
    assert 0 < bad.sum() < ROWS
    assert result.snapshot.to_pandas(store)["i"].tolist() == frame["i"][~bad].tolist()
    assert result.quarantined.rows == bad.sum()
    assert len(get_json(store, result.json)["result"]["results"]) == len(entries)
    assert result.sentence.endswith(f"{bad.sum()} rows quarantined, {(~bad).sum()} go on")
