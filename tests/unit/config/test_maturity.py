"""The table of maturity levels and the ways to name one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.maturity import LEVELS, TERMS, VOCABULARIES, level_number, vocabularies


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (0, 0), (1, 1), (2, 2), ("0", 0), ("1", 1), (" 2 ", 2),
        ({"google": 0}, 0), ({"google": 1}, 1), ({"google": "2"}, 2),
        ({"microsoft": 0}, 0), ({"microsoft": 1}, 0), ({"microsoft": 2}, 1), ({"microsoft": 3}, 2),
        ({"microsoft": 4}, 2), ({"Microsoft": 4}, 2),
        ({"aws": "initial"}, 0), ({"aws": "repeatable"}, 1), ({"aws": "reliable"}, 2), ({"aws": "Scalable"}, 2),
        ("aws:reliable", 2), ("AWS: Repeatable", 1), ("microsoft:3", 2), ("microsoft: 1", 0), ("google:1", 1),
    ],
)  # fmt: skip
def test_a_level_is_named_in_any_of_the_three_vocabularies(value: object, level: int) -> None:
    assert level_number(value) == level


@pytest.mark.parametrize(
    "value",
    [
        True, False, None, 3, -1, 1.0, "", ":", "three", "reliable", "microsoft:5", "aws:1", "azure:1", "1:1", [], [1],
        {}, {"aws": "reliable", "google": 2}, {"google": True}, {"google": None}, {1: 1}, {"aws": ["reliable"]},
    ],
)  # fmt: skip
def test_what_names_no_level_is_refused_with_the_possible_values(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a level") as refused:
        level_number(value)
    message = str(refused.value)
    assert "0, 1, 2" in message
    assert "microsoft: 0, 1, 2, 3, 4" in message
    assert "aws: initial, repeatable, reliable, scalable" in message


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(ANY | st.dictionaries(st.sampled_from(sorted(VOCABULARIES)), ANY, min_size=1, max_size=1))
def test_anything_else_is_a_level_or_a_value_error(value: object) -> None:
    try:
        level = level_number(value)
    except ValueError:
        return
    assert level in (0, 1, 2)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_level_is_said_in_all_three_vocabularies_and_back(level: int) -> None:
    said = vocabularies(level)
    assert list(said) == ["google", "microsoft", "aws"]
    for name, terms in said.items():
        assert terms
        for term in terms:
            assert level_number({name: term.word}) == level_number(f"{name}:{term.word}") == level
    assert [t.word for t in said["google"]] == [str(level)]


@pytest.mark.parametrize("level", [-1, 3])
def test_there_are_no_more_levels(level: int) -> None:
    with pytest.raises(ValueError, match="no level"):
        vocabularies(level)


def test_the_table_is_complete() -> None:
    assert sorted(LEVELS) == [0, 1, 2]
    assert {t.level for t in TERMS} == {*LEVELS}
    assert len({(t.vocabulary, t.word) for t in TERMS}) == len(TERMS)
    for name in VOCABULARIES:
        terms = [t for t in TERMS if t.vocabulary == name]
        assert [t.level for t in terms] == sorted(
            t.level for t in terms
        )  # a model's later level is never an earlier one
    for term in TERMS:
        assert term.source.startswith("https://")
        assert term.asks.endswith(".")
        assert term.asks.count(". ") == 0


def test_the_documentation_has_the_same_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "explanation" / "levels.md").read_text(encoding="utf-8")
    for level in (0, 1, 2):
        google, microsoft, aws = ("; ".join(map(str, terms)) for terms in vocabularies(level).values())
        assert f"| {google} | {microsoft} | {aws} |" in page
    assert all(term.source.partition("#")[0] in page for term in TERMS)


def test_a_term_is_written_once() -> None:
    assert [str(t) for t in TERMS if t.level == 1] == ["1 ML pipeline automation", "2 Automated training", "repeatable"]
