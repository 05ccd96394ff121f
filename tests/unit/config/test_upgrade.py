"""Upgrades change what they must and nothing else: comments, layout, line ends."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.issues import InvalidPipeline
from airflow_mlops.config.upgrade import CURRENT, MIGRATIONS, Rename, upgraded
from airflow_mlops.config.yaml_source import parse

NEXT = {
    1: (
        Rename(("train", "estimator"), "model"),
        Rename(("evaluate", "gates", "*", "at_least"), "minimum"),
        Rename(("owner",), "team"),
    )
}
FILE = """\
# yaml-language-server: $schema=./mlops.schema.json
schema: 1   # the vocabulary
pipeline: a
'owner': "owner"      # who owns the owner
level: 0
train: {estimator: sklearn.estimator.X, params: {estimator: 3}}   # estimator
evaluate:
  gates:
    - {metric: roc_auc, at_least: 0.6}
    # at_least is not for this one
    - metric: log_loss
      at_most: 1
    - "at_least": 0.5   # quoted
environments:
  staging:
    evaluate: {gates: [{metric: r2, at_least: 0}]}
    owner: me
  production:
"""
UPGRADED = """\
# yaml-language-server: $schema=./mlops.schema.json
schema: 2   # the vocabulary
pipeline: a
team: "owner"      # who owns the owner
level: 0
train: {model: sklearn.estimator.X, params: {estimator: 3}}   # estimator
evaluate:
  gates:
    - {metric: roc_auc, minimum: 0.6}
    # at_least is not for this one
    - metric: log_loss
      at_most: 1
    - minimum: 0.5   # quoted
environments:
  staging:
    evaluate: {gates: [{metric: r2, minimum: 0}]}
    team: me
  production:
"""


def issue(text: str, **given: object) -> str:
    with pytest.raises(InvalidPipeline) as caught:
        upgraded(text, "p.yaml", **given)  # type: ignore[arg-type]
    (found,) = caught.value.issues
    return f"{found.line}:{found.column} {found.message}"


def test_the_table_leads_to_the_version_that_is_read() -> None:
    assert sorted(MIGRATIONS) == list(range(1, CURRENT))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pipeline: a\n", "schema: 1\npipeline: a\n"),
        ("# top\n\n# of a\npipeline: a # c", "# top\n\n# of a\nschema: 1\npipeline: a # c"),
        ("  pipeline: a\n  level: 0\n", "  schema: 1\n  pipeline: a\n  level: 0\n"),
        ("%YAML 1.2\n---\npipeline: a\n", "%YAML 1.2\n---\nschema: 1\npipeline: a\n"),
        ("{pipeline: a}\n", "{schema: 1, pipeline: a}\n"),
        ("--- # x\n{ # {\n  pipeline: a}\n", "--- # x\n{ # {\n  schema: 1, pipeline: a}\n"),
        ("? pipeline\n: a\n", "schema: 1\n? pipeline\n: a\n"),
        ("# a\r\npipeline: a\r\nlevel: 0\r\n", "# a\r\nschema: 1\r\npipeline: a\r\nlevel: 0\r\n"),
        ("'pipeline': a\n", "schema: 1\n'pipeline': a\n"),
        ("&x pipeline: a\ny: *x\n", "schema: 1\n&x pipeline: a\ny: *x\n"),
        ("extends: b.yaml", "schema: 1\nextends: b.yaml"),
        ("data: {schema: 1}\n", "schema: 1\ndata: {schema: 1}\n"),
    ],
)
def test_a_file_without_a_version_gets_it(old: str, new: str) -> None:
    assert upgraded(old, "p.yaml") == new
    assert upgraded(new, "p.yaml") == new


def test_a_file_of_this_version_stays_as_it_is() -> None:
    assert upgraded(FILE, "p.yaml") == FILE


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schema: 2\npipeline: a\n", "1:9 this file was written for a newer version of airflow-mlops: schema 2"),
        ("schema: 0\n", "1:9 `schema` must be a version from 1 to 1"),
        ("schema: '1'\n", "1:9 `schema` must be a version from 1 to 1"),
        ("schema: true\n", "1:9 `schema` must be a version from 1 to 1"),
        ("schema:\n", "1:1 `schema` must be a version from 1 to 1"),
        ("- a\n", "1:1 the file is not a mapping of keys to values"),
        ("", "1:1 the file is empty"),
        ("a: 1\na: 2\n", "2:1 duplicate key `a`; it is already on line 1"),
    ],
)
def test_what_is_not_upgraded(text: str, told: str) -> None:
    assert issue(text) == told


def test_keys_are_renamed_where_they_are_keys() -> None:
    assert upgraded(FILE, "p.yaml", NEXT) == UPGRADED
    assert upgraded(UPGRADED, "p.yaml", NEXT) == UPGRADED


def test_a_file_without_a_version_is_of_the_first() -> None:
    assert upgraded("owner: me\n", "p.yaml", NEXT) == "schema: 2\nteam: me\n"


def test_every_line_end_stays() -> None:
    for end in ("\r\n", "\r"):
        assert upgraded(FILE.replace("\n", end), "p.yaml", NEXT) == UPGRADED.replace("\n", end)


def test_versions_follow_each_other() -> None:
    two = {1: (Rename(("owner",), "team"),), 2: (Rename(("team",), "crew"),)}
    assert upgraded("owner: me\n", "p.yaml", two) == "schema: 3\ncrew: me\n"
    assert upgraded("schema: 2\nowner: x\nteam: me\n", "p.yaml", two) == "schema: 3\nowner: x\ncrew: me\n"


def test_a_section_and_a_key_in_it_are_renamed_together() -> None:
    both = {1: (Rename(("data",), "input"), Rename(("data", "source"), "path"))}
    assert upgraded("data: {source: x}\n", "p.yaml", both) == "schema: 2\ninput: {path: x}\n"


def test_an_alias_is_renamed_once() -> None:
    rename = {1: (Rename(("a", "*", "old"), "new"),)}
    assert upgraded("schema: 1\na: [&x {old: 1}, *x]\n", "p.yaml", rename) == ("schema: 2\na: [&x {new: 1}, *x]\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schema: 1\na: &x {old: 1}\nb: *x\n", "would change more than it should"),
        ("schema: 1\na: {old: 1, new: 2}\n", "`old` is now `new`, which is here too"),
        ("schema: 1\na: {&k old: 1}\n", "cannot be renamed here"),
        ("schema: 0x1\na: {old: 1}\n", "`schema` cannot be changed here"),
        ('schema: 1\na: {"ol\\x64": 1, b: 2}\n', ""),
    ],
)
def test_what_has_to_be_changed_by_hand(text: str, told: str) -> None:
    rename = {1: (Rename(("a", "old"), "new"),)}
    if told:
        assert told in issue(text, migrations=rename)
    else:
        assert parse(upgraded(text, "p.yaml", rename), "p.yaml").data == {"schema": 2, "a": {"new": 1, "b": 2}}


KEYS = st.sampled_from(["owner", "train", "estimator", "evaluate", "gates", "at_least", "environments", "x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def renamed(data: dict[str, object]) -> dict[str, object]:
    """The migration of ``NEXT``, made on the data."""
    result = dict(data)
    if isinstance(train := result.get("train"), dict):
        result["train"] = {"model" if k == "estimator" else k: v for k, v in train.items()}
    evaluate = result.get("evaluate")
    if isinstance(evaluate, dict) and isinstance(gates := evaluate.get("gates"), list):
        new = [
            {"minimum" if k == "at_least" else k: v for k, v in g.items()} if isinstance(g, dict) else g for g in gates
        ]
        result["evaluate"] = {**evaluate, "gates": new}
    return {"team" if k == "owner" else k: v for k, v in result.items()}


@pytest.mark.timeout(60)
@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES, min_size=1), st.booleans(), st.booleans())
def test_any_file_means_the_same_afterwards(data: dict[str, object], flow: bool, numbered: bool) -> None:
    if numbered:
        data = {"x": 0, "schema": 1, **data}
    text = yaml.safe_dump(data, default_flow_style=flow, sort_keys=False, allow_unicode=True)
    source = parse(text, "p.yaml")
    if source.failed:  # such as text that YAML 1.1 writes plain
        return
    wanted = renamed(source.data)
    if isinstance(overlays := wanted.get("environments"), dict):
        wanted["environments"] = {k: renamed(v) if isinstance(v, dict) else v for k, v in overlays.items()}
    result = parse(upgraded(text, "p.yaml", NEXT), "p.yaml")
    assert not result.issues
    assert result.data == {**wanted, "schema": 2}
