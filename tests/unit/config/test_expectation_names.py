"""What the names of a file's expectations and their arguments are told, before anything is imported or run."""

from __future__ import annotations

import pytest

from airflow_mlops.config.issues import Issue
from airflow_mlops.config.semantics import check
from airflow_mlops.config.yaml_source import parse

BETWEEN = "expect_column_values_to_be_between"


def found(name: str, arguments: str) -> list[Issue]:
    source = parse(f"validate:\n  expectations:\n    - {name}: {{{arguments}}}\n", "p.yaml")
    assert not source.issues
    check(source)
    return source.issues


def one(name: str, arguments: str) -> Issue:
    issues = found(name, arguments)
    assert len(issues) == 1, [i.message for i in issues]
    return issues[0]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("expect_column_values_to_be_betwen", BETWEEN), ("ExpectColumnValuesToBeBetween", BETWEEN),
     ("column_values_to_be_between", BETWEEN)],
)  # fmt: skip
def test_unknown_expectations(name, meant):
    issue = one(name, "column: a")
    assert (issue.code, issue.line, issue.column) == ("expectation", 3, 7)
    assert issue.path == f"validate.expectations.0.{name}"
    assert issue.suggestion == f"did you mean `{meant}`?"


def test_an_expectation_that_is_like_none():
    assert "greatexpectations.io" in str(one("expect_zzzzzzzzzzzzzzzz", "a: 1").suggestion)
    assert not found("zzzzzzzzzzzzzzz", "a: 1")  # the form of the entry is told of elsewhere


@pytest.mark.parametrize(
    ("name", "arguments", "key", "message", "suggestion"),
    [
        (BETWEEN, "colum: a, min_value: 1", "colum", "has no argument `colum`", "did you mean `column`?"),
        (BETWEEN, "column: a, min_val: 1", "min_val", "has no argument `min_val`", "did you mean `min_value`?"),
        (
            BETWEEN,
            "column: a, min_value: 1, zzz: 1",
            "zzz",
            "has no argument `zzz`",
            "it takes column, condition_parser",
        ),
        (BETWEEN, "column: a, min_value: low", "min_value", "a number, a date or time or null, not the text 'low'", ""),
        (BETWEEN, "column: a, min_value: 9, max_value: 1", "min_value", "larger than `max_value`, 1", "exchange"),
        (BETWEEN, "column: a, min_value: 1, mostly: 95", "mostly", "at least 0 and at most 1, not 95", "write 0.95"),
        (BETWEEN, "column: a, min_value: 1, mostly: -0.1", "mostly", "not -0.1", ""),
        (BETWEEN, "column: a, min_value: 1, strict_min: maybe", "strict_min", "true or false, not the text", ""),
        (BETWEEN, "column: a, min_value: 1, severity: warn", "severity", "'critical', 'info' or 'warning'", "warning"),
        (
            BETWEEN,
            "column: 5, min_value: 1",
            "column",
            "`column` of `expect_column_values_to_be_between` must be text",
            "",
        ),
        ("expect_column_values_to_be_in_set", "column: a, value_set: x", "value_set", "must be a list", ""),
        ("expect_compound_columns_to_be_unique", "column_list: [1, []]", "column_list", "must be a list of text", ""),
    ],
)
def test_arguments(name, arguments, key, message, suggestion):
    issue = one(name, arguments)
    assert (issue.code, issue.path, issue.severity) == ("argument", f"validate.expectations.0.{name}.{key}", "error")
    assert message in issue.message
    assert suggestion in str(issue.suggestion)


@pytest.mark.parametrize(
    ("name", "arguments", "message", "suggestion"),
    [
        (BETWEEN, "min_value: 1", f"`{BETWEEN}` needs `column`", "add `column`: text"),
        (BETWEEN, "column: a", "needs `min_value`, `max_value` or both", "add one of them"),
        (
            BETWEEN,
            "column: a, min_value: null, max_value: null",
            "needs `min_value`, `max_value` or both",
            "add one of them",
        ),
        ("expect_column_values_to_be_in_set", "column: a", "needs `value_set`", "add `value_set`: a list"),
        ("expect_column_pair_values_to_be_equal", "column_A: a", "needs `column_B`", "add `column_B`: text"),
    ],
)
def test_missing_arguments(name, arguments, message, suggestion):
    issue = one(name, arguments)
    assert (issue.code, issue.path) == ("argument", f"validate.expectations.0.{name}")
    assert (issue.line, issue.column) == (3, 7)
    assert message in issue.message
    assert issue.suggestion == suggestion


def test_regular_expressions():
    issue = one("expect_column_values_to_match_regex", "column: a, regex: '([a-z'")
    assert (issue.code, issue.path.rpartition(".")[2]) == ("regex", "regex")
    assert "unterminated character set" in issue.message
    issue = one("expect_column_values_to_match_regex_list", "column: a, regex_list: [a, '*']")
    assert (issue.code, issue.path.split(".")[-2:]) == ("regex", ["regex_list", "1"])
    for pattern in ("[[a]", "(" * 150 + ")" * 150):  # a warning of Python's, and a deep one
        found("expect_column_values_to_match_regex", f"column: a, regex: '{pattern}'")


@pytest.mark.parametrize(
    ("engine", "entry", "message"),
    [
        ("sql", "expect_column_values_to_be_increasing: {column: a}", "rows of a database have no order"),
        ("sql", "expect_multicolumn_sum_to_equal: {column_list: [a, b], sum_total: 1}", "compares no missing values"),
        ("pandas", 'expect_column_values_to_match_like_pattern: {column: a, like_pattern: "%x"}', "pandas cannot"),
    ],
)
def test_what_an_engine_cannot_compute(engine, entry, message):
    source = parse(f"validate:\n  engine: {engine}\n  expectations:\n    - {entry}\n", "p.yaml")
    check(source)
    (issue,) = source.issues
    assert message in issue.message
    assert (issue.line, issue.code) == (4, "engine")
