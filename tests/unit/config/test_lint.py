"""Checking many files: what is found once, in which environment, and across files; and that a message is enough."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.config import lint as module
from airflow_mlops.config.issues import Issue
from airflow_mlops.config.lint import count_files, lint
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.settings import Settings
from airflow_mlops.config.yaml_advice import advice

SETTINGS = Settings(allowed_imports=(), allow_commands=False, need_variables=False)
MANUAL = """\
pipeline: churn
level: 0
data: {source: churn.csv, target: churned}
train: {estimator: sklearn.linear_model.LogisticRegression}
"""
CONTINUOUS = MANUAL.replace("level: 0", "level: 1") + (
    "evaluate: {gates: [{metric: roc_auc, at_least: 0.6}]}\nretrain: {schedule: '@weekly'}\n"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(**files: str) -> None:
    for name, text in files.items():
        path = Path(name.replace("__", "/") + ".yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, newline="")


def found(*paths: str, columns: list[str] | None = None, **settings: object) -> list[Issue]:
    chosen = Settings(**{"allowed_imports": (), "need_variables": False} | settings)  # type: ignore[arg-type]
    known = None if columns is None else (lambda config: columns)
    return lint([Path(p) for p in paths or (".",)], chosen, columns=known)


def places(issues: list[Issue]) -> list[tuple[str, int, str]]:
    return [(os.path.relpath(i.file), i.line, i.code) for i in issues]


# Each is a change of a good file: what is written instead, the line it is found on, and a part of what is said
# about it and of what to do.
MISTAKES = {
    "unknown key at depth": ("at_least", "at_leest", 5, "unknown key `at_leest`", "did you mean `at_least`?"),
    "no shard size": ("level: 1", "level: 1\nfleet: {key: a, shard_size: 0}", 3, "be at least 1, and is 0", None),
    "wrong type": ("target: churned", "target: churned, min_rows: many", 3, "must be a whole number", None),
    "missing key": (", target: churned", "", 3, "`target` is missing in `data`", "add `target:`"),
    "duplicate key": ("level: 1", "level: 1\nlevel: 0", 3, "already on line 2", "keep one of the two"),
    "bad cron": ("'@weekly'", "every monday", 6, "@weekly", None),
    "drift without monitor": ("schedule: '@weekly'", "when: [drift]", 6, "needs `monitor`", None),
    "no gates": ("gates: [{metric: roc_auc, at_least: 0.6}]", "", 2, "needs `evaluate.gates`", None),
    "unknown estimator": ("LogisticRegression", "LogisticRegresion", 4, "has no estimator", "did you mean"),
    "code that is not allowed": ("sklearn.linear_model.LogisticRegression", "os.system", 4, "allowed_imports", "own"),
    "tag": ("churn.csv", "!!python/name:os.system x", 3, "tag", "remove the tag"),
    "tab": ("data: {source: churn.csv, target: churned}", "data:\n\tsource: a", 4, "token", "spaces, not tabs"),
    "at sign": ("'@weekly'", "@weekly", 6, "token", "quotes around a text that begins with `@`"),
    "star": ("churn.csv", "*.csv", 3, "alias", "quotes around a text that begins with `*`"),
    "template without quotes": ("churn.csv", "{{ window.start }}", 3, "key must be text", "around the value"),
    "no": ("target: churned", "target: churned}\napprove: {required: no", 4, "true or false", "write false"),
    "version number": ("level: 1", "level: 1\ndescription: 1.10", 3, "must be text", 'quote it: "1.10"'),
    "clock": ("level: 1", "level: 1\napprove: {timeout: 12:30}", 3, "12:30' is not a duration", None),
    "number without unit": ("target: churned", "target: churned, window: 90", 3, "must be text", "90d, 90h or 90m"),
    "list for a mapping": ("{source: churn.csv, target: churned}", "[{source: a}]", 3, "not a list", "without dashes"),
    "mapping for a list": ("[{metric: roc_auc, at_least: 0.6}]", "{metric: r2}", 5, "must be a list", "a dash"),
    "too far in": (
        "data: {source: churn.csv, target: churned}",
        "data:\n  source: a.csv\n   target: y",
        5,
        "mapping values",
        "the indentation of the line above",
    ),
    "not far enough in": (
        "{source: churn.csv, target: churned}",
        "\nsource: a.csv",
        3,
        "`data` is empty",
        "indent its keys below it",
    ),
    "colon in a text": ("level: 1", "level: 1\ndescription: churn: who leaves", 3, "mapping values", "quote a value"),
    "no space after the colon": ("pipeline: churn", "pipeline:churn", 2, "mapping values", "line above, put a space"),
    "open quote": ("churn.csv", '"churn.csv', 3, "the quote that opens here is not closed", "close the quote"),
    "open bracket": ("churned}", "churned", 4, "',' or '}'", "close the bracket of line 3"),
    "decimal comma": ("0.6", "0,6", 5, "`6` is not text", "decimal number with a point"),
    "level in words": ("level: 1", "level: one", 2, "must be 0, 1 or 2, not the text 'one'", None),
    "no such day": ("level: 1", "level: 1\ndag: {start_date: 2024-13-01}", 3, "is not a day of the calendar", None),
    "unknown alias": ("level: 1", "level: 1\nowner: *me", 3, "not defined before this line", "write the values out"),
    "name with a space": ("pipeline: churn", "pipeline: my churn", 1, "is not a name", "letters, digits"),
    "too deep": ("level: 1", f"level: 1\ndescription: {'[' * 50}{']' * 50}", 3, "more than 40 levels deep", None),
    "two documents": ("level: 1", "level: 1\n---\npipeline: b", 3, "second document", "one pipeline per file"),
    "Airflow's own template": ("churn.csv", '"{{ ds }}.csv"', 3, "only {{ window.start }}", None),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_message_is_enough_to_mend_the_file(mistake: str) -> None:
    old, new, line, message, suggestion = MISTAKES[mistake]
    assert old in CONTINUOUS
    write(churn=CONTINUOUS.replace(old, new, 1))
    issues = found()
    (issue,) = [i for i in issues if i.line == line and message in i.message]
    assert (issue.file, issue.severity) == ("churn.yaml", "error")
    assert suggestion is None or suggestion in (issue.suggestion or "")


def test_windows_line_ends_and_a_byte_order_mark() -> None:
    write(churn="\ufeff" + CONTINUOUS.replace("at_least", "at_leest").replace("\n", "\r\n"))
    (issue,) = found()
    assert (issue.line, issue.column, issue.text[-1]) == (5, 38, "}")


def test_files_that_cannot_be_read_are_issues(folder: Path) -> None:
    write(empty="", comment="# later\n", text="hello\n")
    Path("latin.yaml").write_bytes("owner: Jürgen\n".encode("latin-1"))
    Path("link.yaml").symlink_to("nowhere.yaml")
    Path("folder.yaml").mkdir()
    assert places(found()) == [
        ("comment.yaml", 1, "empty"),
        ("empty.yaml", 1, "empty"),
        ("latin.yaml", 1, "encoding"),
        ("link.yaml", 1, "not_found"),
        ("text.yaml", 1, "not_a_mapping"),
    ]
    assert places(found("folder.yaml", "no")) == [("folder.yaml", 1, "empty_folder"), ("no", 1, "not_found")]


def test_good_files_have_no_issues() -> None:
    write(churn=MANUAL, sub__other=CONTINUOUS.replace("churn", "other"))
    assert found() == []
    assert count_files([Path(), Path("churn.yaml"), Path("no")]) == 2


class TestBases:
    def test_mistakes_of_a_base_are_told_once(self) -> None:
        write(base="data: {sorce: a.csv}\ndag: {timezone: Mars}\n")
        for name in ("a", "b"):
            text = MANUAL.replace("churn\n", f"{name}\n").replace("source: churn.csv, ", "")
            write(**{name: "extends: base.yaml\n" + text})
        expected = [("base.yaml", 1, "extra_forbidden"), ("base.yaml", 2, "value_error")]
        assert places(found()) == expected
        assert places(found("a.yaml")) == expected
        assert places(found("base.yaml")) == expected
        assert places(found("a.yaml", "base.yaml", ".")) == expected

    def test_a_base_that_is_extended_rightly_is_no_pipeline(self) -> None:
        write(base="owner: me\n", a="extends: base.yaml\n" + MANUAL)
        assert found() == found("base.yaml") == []

    def test_a_base_is_judged_by_pipelines_alone(self) -> None:
        write(base="data: {target: y}\n", between="extends: base.yaml\nowner: me\n")
        assert found("base.yaml") == [], "`data.source` is for a pipeline to say"

    def test_a_file_that_nobody_extends_needs_a_name(self) -> None:
        write(base="owner: me\n", a=MANUAL)
        assert ("base.yaml", 1, "missing") in places(found())

    def test_a_broken_base_is_told_once(self) -> None:
        write(base="a: [\n", a="extends: base.yaml\n" + MANUAL, b="extends: base.yaml\n" + MANUAL)
        assert [p for p in places(found()) if p[0] == "base.yaml"] == [("base.yaml", 2, "yaml")]

    def test_a_circle_is_told(self) -> None:
        write(a="extends: b.yaml\n" + MANUAL, b="extends: a.yaml\n" + MANUAL.replace("churn\n", "b\n"))
        assert all("a.yaml → b.yaml → a.yaml" in i.message or "b.yaml → a.yaml" in i.message for i in found())
        assert len(found()) == 2

    def test_the_root_of_a_file_is_the_current_folder(self) -> None:
        write(base="owner: me\n", sub__a="extends: ../base.yaml\n" + MANUAL)
        assert found("sub/a.yaml") == found("sub") == []

    def test_elsewhere_the_root_is_the_folder_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        write(base="owner: me\n", sub__a="extends: ../base.yaml\n" + MANUAL)
        sub = Path("sub").resolve()
        monkeypatch.chdir("/")
        assert [i.code for i in found(sub.parent)] == []
        Path(sub.parent / "other").mkdir()
        monkeypatch.chdir(sub.parent / "other")
        (issue,) = found(sub)
        assert (issue.code, issue.line) == ("extends", 1)


class TestEnvironments:
    def test_every_overlay_is_checked(self) -> None:
        write(churn=MANUAL + "environments:\n  staging: {data: {min_rows: few}}\n  production: {owner: [me]}\n")
        issues = found()
        assert places(issues) == [("churn.yaml", 6, "int_type"), ("churn.yaml", 7, "string_type")]
        assert all("environment" not in i.message for i in issues), "the place says it"

    def test_what_an_overlay_breaks_elsewhere_names_it(self) -> None:
        write(
            churn=MANUAL + "monitor:\nenvironments:\n  staging: {level: 1}\n"
            "  production: {level: 1}\n  development: {owner: me}\n"
        )
        overlay = [i for i in found() if "retrain" in i.message]
        assert [i.line for i in overlay] == [7, 8]
        write(churn=CONTINUOUS + "environments:\n  staging: {evaluate: null}\n  live: {evaluate: null}\n  dev:\n")
        (issue,) = found()
        assert (issue.line, issue.severity) == (2, "error")
        assert issue.message.endswith("(in environments staging, live)")

    def test_what_each_overlay_mends_is_a_warning(self) -> None:
        write(churn=MANUAL.replace("source: churn.csv, ", "") + "environments: {a: {data: {source: a.csv}}}\n")
        (issue,) = found()
        assert (issue.severity, issue.line) == ("warning", 3)
        assert issue.message.endswith("(where no environment is chosen)")

    def test_only_the_chosen_one_counts(self) -> None:
        write(churn=MANUAL + "environments: {a: {owner: 1}, b: {owner: 2}, c: {}}\n")
        assert len(found()) == 2
        assert [i.text[i.column - 1] for i in found(environment="b")] == ["2"]
        assert found(environment="c") == []
        (unknown,) = found(environment="d")
        assert "'d' is chosen, and the file has a, b, c" in unknown.message

    def test_an_unset_variable_is_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MLOPS_NOT_SET", raising=False)
        write(churn=MANUAL + "owner: ${env:MLOPS_NOT_SET}\nenvironments: {a: {}}\n")
        assert [(i.code, i.severity) for i in found()] == [("variable_unset", "warning")]


class TestAcrossFiles:
    def test_a_name_belongs_to_one_file(self) -> None:
        write(a=MANUAL, churn="# mine\n" + MANUAL, z=MANUAL)
        issues = found()
        assert [(i.file, i.line, i.column, i.code, i.path) for i in issues] == [
            ("a.yaml", 1, 11, "duplicate_pipeline", "pipeline"),
            ("z.yaml", 1, 11, "duplicate_pipeline", "pipeline"),
        ]
        assert all("churn.yaml, line 2" in i.message for i in issues)
        Path("churn.yaml").unlink()
        assert [(i.file, "a.yaml, line 1" in i.message) for i in found()] == [("z.yaml", True)]
        assert found("a.yaml", "./a.yaml", str(Path("a.yaml").absolute())) == [], "one file is no duplicate of itself"

    @given(st.lists(st.from_regex(r"[A-Za-z][A-Za-z0-9_\-]{0,9}", fullmatch=True), min_size=2, unique=True))
    def test_different_names_have_different_dag_ids(self, names: list[str]) -> None:
        ids = [f"{name}__{kind}" for name in names for kind in ("train", "predict", "monitor", "registry", "invalid")]
        assert len(set(ids)) == len(ids)

    def test_too_many_for_one_loader(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_FOR_ONE_LOADER", 1)
        write(pipelines__a=MANUAL, pipelines__b=MANUAL.replace("churn\n", "b\n"))
        (issue,) = found("pipelines")
        assert (issue.file, issue.line, issue.code) == ("pipelines", 1, "too_many_for_one_loader")
        assert "airflow mlops loaders pipelines" in (issue.suggestion or "")
        Path("loader.py").write_text('load_dags("pipelines")')
        assert len(found("pipelines")) == 1
        Path("loader_0.py").write_text('load_dags("pipelines", shard=(0, 2))')
        assert found("pipelines") == found() == []
        Path("loader_0.py").rename("pipelines/own.py")
        assert found("pipelines") == []


class TestColumns:
    COLUMNS = ("customer", "churned", "signup", "region", "spend")
    FULL = """\
pipeline: churn
level: 0
data: {source: a.csv, target: churned, id: customer, timestamp: signup, exclude: [spend], split: {by: time}}
train: {estimator: sklearn.linear_model.LogisticRegression}
evaluate: {gates: [{metric: roc_auc, at_least: 0.6, slices: [region]}]}
validate:
  expectations:
    - expect_column_values_to_not_be_null: {column: spend}
    - expect_column_pair_values_to_be_equal: {column_A: spend, column_B: region}
    - expect_compound_columns_to_be_unique: {column_list: [spend, region]}
    - expect_column_to_exist: {column: nowhere}
    - expect_table_columns_to_match_set: {column_set: [nowhere]}
"""

    @pytest.mark.parametrize(
        ("old", "new", "path"),
        [
            ("target: churned", "target: churnd", "data.target"),
            ("id: customer", "id: custmer", "data.id"),
            ("timestamp: signup", "timestamp: singup", "data.timestamp"),
            ("exclude: [spend]", "exclude: [spend, spent]", "data.exclude.1"),
            ("by: time", "by: group, column: regin", "data.split.column"),
            ("[region]", "[region, regin]", "evaluate.gates.0.slices.1"),
            ("{column: spend}", "{column: spent}", "expectations.0.expect_column_values_to_not_be_null.column"),
            ("column_B: region", "column_B: regin", "expectations.1.expect_column_pair_values_to_be_equal.column_B"),
            ("[spend, region]", "[spend, regin]", "expectations.2.expect_compound_columns_to_be_unique.column_list.1"),
        ],
    )
    def test_each_is_placed(self, old: str, new: str, path: str) -> None:
        write(churn=self.FULL.replace(old, new))
        (issue,) = found(columns=[*self.COLUMNS])
        assert (issue.code, issue.severity) == ("column", "error")
        assert issue.path.endswith(path)
        wrong = issue.message.split("`")[1]
        assert issue.text[issue.column - 1 :].startswith(wrong)
        assert (issue.suggestion or "").startswith("did you mean `")

    @pytest.mark.parametrize(
        ("fleet", "path"),
        [
            ("{key: regoin}", "fleet.key"),
            ("{key: [customer, regoin]}", "fleet.key.1"),
            ("{key: customer, parent: regoin}", "fleet.parent"),
        ],
    )
    def test_those_of_a_fleet(self, fleet: str, path: str) -> None:
        write(churn=MANUAL + f"fleet: {fleet}\n")
        (issue,) = found(columns=[*self.COLUMNS])
        assert (issue.path, issue.message) == (path, "the data has no column `regoin`")
        assert issue.suggestion == "did you mean `region`?"

    def test_known_columns_are_no_issue(self) -> None:
        write(churn=self.FULL)
        assert found(columns=[*self.COLUMNS]) == found() == []

    def test_feature_code_may_make_what_is_left_out(self) -> None:
        text = self.FULL.replace("[spend]", "[made]") + 'features: {callable: "my_pkg.features:build"}\n'
        write(churn=text)
        assert found(columns=[*self.COLUMNS], allowed_imports=("my_pkg",)) == []

    def test_columns_of_an_overlay(self) -> None:
        write(churn=MANUAL + "environments: {staging: {data: {source: s.csv}}}\n")

        def columns(config: PipelineConfig) -> list[str] | None:
            return ["other"] if config.data.source == "s.csv" else None

        (issue,) = lint([Path()], SETTINGS, columns=columns)
        assert issue.message == "the data has no column `churned` (in environment staging)"
        assert issue.suggestion == "the columns are other"


@given(st.text(max_size=40), st.lists(st.text(max_size=20), max_size=3), st.integers(0, 5), st.integers(0, 50))
def test_there_is_advice_for_any_place(message: str, lines: list[str], line: int, column: int) -> None:
    for known in ("cannot start any token", "mapping values are not allowed", "expected ',' or '}'", message):
        if "mapping" not in known or line < len(lines):
            assert advice(known, lines, line, column, None) != ""


def test_no_airflow() -> None:
    code = "import sys, airflow_mlops.config.lint; print([m for m in sys.modules if m.split('.')[0] == 'airflow'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


BLOCKED = MANUAL.replace(
    "target: churned}",
    "target: churned, timestamp: at, window: WINDOW, split: {by: time, test: 0.2}}",
) + ("evaluate: {block: BLOCK, gates: [{metric: roc_auc, at_least: 0.6}, GATE]}\n")
RELATIVE = "{metric: roc_auc, versus: champion, not_worse_by: 0.01}"


@pytest.mark.parametrize(
    ("window", "block", "gate", "warned"),
    [
        ("30d", "1d", RELATIVE, True),
        ("30d", "1d", "{metric: roc_auc, at_least: 0.6, confidence: 0.9}", True),
        ("30d", "1d", "{metric: roc_auc, at_least: 0.6}", False),
        ("30d", "12h", RELATIVE, False),
        ("30d", "none", RELATIVE, False),
        ("60d", "1d", RELATIVE, False),
        ("60d", "1w", RELATIVE, True),
    ],
)
def test_a_holdout_with_too_few_blocks_is_told_before_it_is_drawn(
    window: str, block: str, gate: str, warned: bool
) -> None:
    write(churn=BLOCKED.replace("WINDOW", window).replace("BLOCK", block).replace("GATE", gate))
    issues = found()
    assert [(i.code, i.severity, i.path) for i in issues] == [("blocks", "warning", "evaluate.gates.1")] * warned
    if warned:
        days = 60 if block == "1d" else 420
        assert f"set `data.window` to {days}d or more" in issues[0].suggestion
