"""Files of recorded behaviour: what is right, and where what is wrong stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_mlops.config.behaviours import read_behaviours, unknown_columns
from airflow_mlops.config.folder import pipeline_files
from airflow_mlops.config.issues import InvalidPipeline, Issue
from airflow_mlops.config.lint import lint
from airflow_mlops.config.models import Gate
from airflow_mlops.config.settings import Settings

GOOD = """\
base: {distance: 1000, carrier: AA}
outputs:
  - {name: a short hop is on time, row: {distance: 100}, expect: ok}
  - row: {distance: 5000}
    at_least: 0.2
    class: late
invariances:
  - {name: the name says nothing, change: carrier, to: [AA, DL, null], within: 0.02}
  - {change: distance, by: -1, rows: [{}, {distance: 3}]}
directions:
  - {increase: distance, by: 500, must_not: fall, within: 0.01, min_share: 0.95}
"""


def read(tmp_path: Path, text: str, name: str = "a.behaviours.yaml"):
    (tmp_path / name).write_text(text)
    return read_behaviours(tmp_path, name)


def issues(tmp_path: Path, text: str, name: str = "a.behaviours.yaml"):
    with pytest.raises(InvalidPipeline) as e:
        read(tmp_path, text, name)
    return e.value.issues


def test_a_file_of_all_three_kinds(tmp_path):
    found = read(tmp_path, GOOD)
    assert [(c.kind, c.name, c.line) for c in found.cases] == [
        ("output", "a short hop is on time", 3),
        ("output", "output 2", 4),
        ("invariance", "the name says nothing", 8),
        ("invariance", "invariance 2", 9),
        ("direction", "direction 1", 11),
    ]
    assert found.rows(found.cases[0]) == [{"distance": 100, "carrier": "AA"}]
    assert found.rows(found.cases[2]) is None
    assert found.rows(found.cases[3]) == [{"distance": 1000, "carrier": "AA"}, {"distance": 3, "carrier": "AA"}]
    assert len(found.digest) == 64
    assert read(tmp_path, GOOD + "\n").digest != found.digest


def test_json_is_read_too(tmp_path):
    text = '{"outputs": [\n\t{"row": {"a": 1.5, "b": null, "c": true}, "expect": "x"}]}'
    (case,) = read(tmp_path, text, "a.json").cases
    assert case.case.row == {"a": 1.5, "b": None, "c": True}
    assert case.line == 2


def test_a_table_is_a_list_of_outputs(tmp_path):
    text = 'distance,carrier,expect,name\n100,AA,ok,short\n,"D,L",late,\n'
    first, second = read(tmp_path, text, "a.csv").cases
    assert (first.name, first.line, first.case.row, first.case.expect) == (
        "short", 2, {"distance": 100, "carrier": "AA"}, "ok",
    )  # fmt: skip
    assert (second.line, second.case.row) == (3, {"distance": None, "carrier": "D,L"})


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("outputs:\n  - {row: {a: 1}, expcet: ok}\n", 2, "unknown key `expcet`"),
        ("outputs:\n  - {row: {a: 1}}\n", 2, "give `expect`, or `at_least`, `at_most` or both"),
        ("outputs:\n  - {row: {a: 1}, expect: ok, at_least: 1}\n", 2, "give `expect`, or"),
        ("outputs:\n  - {row: {a: 1}, at_least: 2, at_most: 1}\n", 2, "no value fits"),
        ("outputs:\n  - {row: {a: [1]}, expect: 1}\n", 2, "a"),
        ("outputs:\n  - {expect: 1}\n", 2, "`row` is missing"),
        ("invariances:\n  - {change: a}\n", 2, "give exactly one of `to` and `by`"),
        ("invariances:\n  - {change: a, by: 0}\n", 2, "other than 0"),
        ("invariances:\n  - {change: a, to: []}\n", 2, "to"),
        ("directions:\n  - {increase: a, by: -1, must_not: fall}\n", 2, "above 0"),
        ("directions:\n\n  - {increase: a, by: 1, must_not: wobble}\n", 3, "must_not"),
        ("base: {a: 1}\n", 1, "give at least one of"),
        ("outputs: []\n", 1, "give at least one of"),
        ("[]\n", 1, "not a mapping"),
        ("outputs: !!python/object {}\n", 1, "tag"),
        ("outputs:\n  - {row: {a: 1, a: 2}, expect: x}\n", 2, "duplicate key"),
    ],
)
def test_mistakes_have_a_place(tmp_path, text, line, message):
    found = issues(tmp_path, text)
    assert message in found[0].message
    assert found[0].line == line
    assert found[0].file.endswith("a.behaviours.yaml")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a,b\n1,2\n", 1, "has no column of what is expected"),
        ("a,a,expect\n1,2,3\n", 1, "names its columns twice"),
        ("a,expect\n1,x\n1\n", 3, "1 fields, and the header has 2"),
        ('a,expect\n1,"x\n', 2, "not a valid CSV table"),
        ("a,expect\n", 1, "the table has no rows"),
        ("a,expect\n1,\n", 2, "give `expect`, or"),
        ("", 1, "has no column"),
    ],
)
def test_mistakes_in_a_table_have_a_place(tmp_path, text, line, message):
    found = issues(tmp_path, text, "a.csv")
    assert message in found[0].message
    assert found[0].line == line


def test_the_message_points_at_the_key_that_is_meant(tmp_path):
    (found,) = issues(tmp_path, "outputs:\n  - {row: {a: 1}, expect: ok, at_leest: 1}\n")
    assert found.suggestion == "did you mean `at_least`?"


@given(st.text(alphabet="outps:invarcedlf{}[],- \n\"'1.#&*!|,\t", max_size=80), st.sampled_from(["a.json", "a.csv"]))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_file_or_has_issues(tmp_path_factory, text, name):
    folder = tmp_path_factory.getbasetemp()
    (folder / name).write_text(text)
    issues: list[Issue] = []
    try:
        cases = read_behaviours(folder, name).cases
    except InvalidPipeline as e:
        cases, issues = (), e.issues
    assert bool(cases) != bool(issues)
    assert all(i.line >= 1 for i in issues)


@pytest.mark.parametrize(
    "name", ["/etc/a.json", "../a.json", "a/../b.json", "a.yaml", "a.txt", "", "~/a.json", "a//b.json", "..\\a.json"]
)
def test_a_file_lies_beside_the_pipeline_and_is_no_pipeline(name):
    with pytest.raises(ValidationError):
        Gate.model_validate({"behaviours": name})


@pytest.mark.parametrize(
    "gate",
    [
        {"at_most": 0.0}, {"confidence": 0.9}, {"at_least": 0.0}, {"at_least": 1.5}, {"metric": "accuracy"},
        {"slices": ["a"]}, {"versus": "champion"}, {"by": ["a"], "max_gap": 0.1},
    ],
)  # fmt: skip
def test_a_gate_of_behaviours_takes_a_share_and_nothing_else(gate):
    Gate.model_validate({"behaviours": "tests/a.json", "at_least": 0.9})
    with pytest.raises(ValidationError):
        Gate.model_validate({"behaviours": "tests/a.json"} | gate)


PIPELINE = """\
pipeline: p
level: 0
data: {source: a.csv, target: y}
train: {estimator: sklearn.linear_model.LogisticRegression}
evaluate: {gates: [{behaviours: p.behaviours.yaml}]}
"""


def test_lint_reads_the_file(tmp_path):
    (tmp_path / "p.yaml").write_text(PIPELINE)

    def found(columns=None):
        return lint([tmp_path], Settings(), columns=(lambda config: columns) if columns else None)

    (issue,) = found()
    assert (issue.line, issue.path) == (5, "evaluate.gates.0.behaviours")
    assert "there is no file `p.behaviours.yaml`" in issue.message
    (tmp_path / "p.behaviours.yaml").write_text(GOOD)
    assert pipeline_files(tmp_path) == [tmp_path / "p.yaml"]
    assert found() == []
    assert found(["distance", "carrier", "y"]) == []
    (issue,) = found(["distance", "carriers", "y"])
    assert (Path(issue.file).name, issue.line, issue.suggestion) == (
        "p.behaviours.yaml", 1, "did you mean 'carriers'?",
    )  # fmt: skip
    (tmp_path / "p.behaviours.yaml").write_text(GOOD.replace("must_not: fall", "must_not: fell"))
    (issue,) = found()
    assert (Path(issue.file).name, issue.line) == ("p.behaviours.yaml", 11)


def test_unknown_columns_are_told_once(tmp_path):
    found = list(unknown_columns(read(tmp_path, GOOD), ["carrier"]))
    assert [(line, name) for line, name, _ in found] == [(1, "distance")]


def test_the_example_in_the_docs_is_a_file(tmp_path):
    page = (Path(__file__).parents[3] / "docs/how-to/behaviours.md").read_text()
    block = page.split("```yaml\n# pipelines/flights.behaviours.yaml\n")[1].split("```")[0]
    assert len(read(tmp_path, block).cases) == 5
