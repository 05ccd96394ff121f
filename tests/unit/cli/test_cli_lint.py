"""`airflow mlops lint`: what is printed for people and for machines, and how it ends."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.cli import lint as module
from airflow_mlops.cli.columns import HEAD_BYTES, LocalColumns
from airflow_mlops.cli.issue_list import harmless, issue_list, summary
from airflow_mlops.cli.lint import lint
from airflow_mlops.cli.sarif import sarif, uri
from airflow_mlops.config.issues import Issue
from airflow_mlops.config.loader import load_text

GOOD = """\
pipeline: churn
level: 0
data: {source: churn.csv, target: churned}
train: {estimator: sklearn.linear_model.LogisticRegression}
"""
BAD = GOOD.replace("target: churned", "target: churned, min_rows: many")
WARNING = GOOD + "description: ${env:MLOPS_NOT_SET}\n"

# What the specification requires (sections 3.13 and on) of the objects that are written here.
SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "required": ["tool", "results"],
                "properties": {
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "tool": {
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "required": ["name"],
                                "properties": {"rules": {"uniqueItems": True, "items": {"required": ["id"]}}},
                            }
                        },
                    },
                    "results": {
                        "items": {
                            "required": ["message", "ruleId", "locations"],
                            "properties": {
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "message": {"required": ["text"]},
                                "locations": {
                                    "items": {
                                        "required": ["physicalLocation"],
                                        "properties": {
                                            "physicalLocation": {
                                                "required": ["artifactLocation", "region"],
                                                "properties": {
                                                    "artifactLocation": {
                                                        "required": ["uri"],
                                                        "properties": {
                                                            "uri": {"type": "string", "pattern": r"^[!-~]+$"}
                                                        },
                                                    },
                                                    "region": {
                                                        "required": ["startLine"],
                                                        "properties": {
                                                            "startLine": {"type": "integer", "minimum": 1},
                                                            "startColumn": {"type": "integer", "minimum": 1},
                                                        },
                                                    },
                                                },
                                            }
                                        },
                                    }
                                },
                            },
                        }
                    },
                },
            },
        },
    },
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRFLOW__MLOPS__DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.delenv("MLOPS_NOT_SET", raising=False)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *paths: str, **options: Any) -> tuple[int, str, str]:
    args = Namespace(**{"paths": [*paths], "output": "table", "strict": False, "environment": None} | options)
    code = 0
    try:
        lint(args)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 99
    out = capsys.readouterr()
    return code, out.out, out.err


def issue(**changes: Any) -> Issue:
    given = {
        "file": "a.yaml", "line": 3, "column": 8, "path": "data.sorce", "code": "extra_forbidden",
        "message": "unknown key `sorce` in `data`", "suggestion": "did you mean `source`?",
        "text": "data: {sorce: x.csv}", "severity": "error",
    }  # fmt: skip
    return Issue(**(given | changes))


def lines(*issues: Issue, width: int | None = None, colour: bool = False, files: int = 1) -> list[str]:
    return list(issue_list(issues, files, width=width, colour=colour))


class TestList:
    def test_place_line_carets_and_what_to_do(self) -> None:
        assert lines(issue()) == [
            "a.yaml:3:8: unknown key `sorce` in `data`",
            "    3 | data: {sorce: x.csv}",
            "      |        ^^^^^",
            "  What to do: did you mean `source`?",
            "",
            "1 error in 1 of 1 file",
        ]

    def test_long_messages_wrap_on_a_terminal_only(self) -> None:
        long = issue(message="word " * 40, suggestion="word " * 40, text="x" * 300, column=200, file="a" * 100)
        assert max(map(len, lines(long, width=80)[1:])) <= 80
        assert lines(long)[0].count("word") == 40

    @pytest.mark.parametrize(
        "text",
        ["k: [" + "a, " * 60 + "!!", "k: " + "\x00" * 50 + "!!", "k: " + "日本" * 40 + "!!"],
        ids=["comma", "nul", "wide"],
    )
    @pytest.mark.parametrize("width", [40, 80, 120])
    def test_the_caret_is_below_what_is_wrong(self, text: str, width: int) -> None:
        shown, mark = lines(issue(message="m", text=text, column=text.index("!!") + 1), width=width)[1:3]
        assert mark.endswith("^^")
        before = shown[: shown.index("!!")]
        assert mark.index("^") == sum(2 if ord(c) > 0x2FFF else 1 for c in before)

    def test_a_caret_after_the_end(self) -> None:
        shown, mark = lines(issue(text="a: [", column=5))[1:3]
        assert mark.index("^") == len(shown)

    def test_nothing_that_a_terminal_obeys(self) -> None:
        evil = "\x1b[31m\x07\x9b\u202e\r\n\udcff"
        printed = "\n".join(lines(issue(file=evil, message=evil, suggestion=evil, text=f"data: {evil}"), width=80))
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\udcff]", printed)
        assert "\\x1b[31m" in printed

    @given(st.text(st.characters()))
    def test_everything_is_printable(self, text: str) -> None:
        assert harmless(text).isprintable()

    def test_colour(self) -> None:
        assert "\x1b" not in "".join(lines(issue()))
        shown = lines(issue(severity="warning"), colour=True)
        assert shown[0] == "\x1b[1ma.yaml:3:8:\x1b[0m \x1b[33mwarning: \x1b[0munknown key `sorce` in `data`"
        assert re.sub(r"\x1b\[\d+m", "", "\n".join(shown)) == "\n".join(lines(issue(severity="warning")))

    def test_the_summary(self) -> None:
        assert summary([], 14) == "14 files, no errors"
        errors = [issue(), issue(line=4), issue(file="b.yaml"), issue(severity="warning")]
        assert summary(errors, 14) == "3 errors and 1 warning in 2 of 14 files"
        assert summary([issue(severity="warning")], 1) == "1 warning in 1 of 1 file"
        assert summary([issue(file=".")], 1600) == "1 error; 1,600 files"


class TestCommand:
    def test_good_files(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("churn.yaml").write_text(GOOD)
        assert run(capsys, ".") == (0, "1 file, no errors\n", "")
        assert run(capsys, ".", output="json") == (0, "[]\n", "")

    def test_errors(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        Path("churn.yaml").write_text(BAD)
        for path in (".", "churn.yaml", str(folder)):
            code, out, _ = run(capsys, path)
            assert code == 1
            assert out.startswith("churn.yaml:3:54: `data.min_rows` must be a whole number")
            assert out.endswith("1 error in 1 of 1 file\n")
        (record,) = json.loads(run(capsys, str(folder), output="json")[1])
        assert record == {
            "file": "churn.yaml", "line": 3, "column": 54, "path": "data.min_rows", "severity": "error",
            "code": "int_type", "message": "`data.min_rows` must be a whole number, not the text 'many'",
            "suggestion": None,
        }  # fmt: skip

    def test_a_warning_is_an_error_where_that_is_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("churn.yaml").write_text(WARNING)
        code, out, _ = run(capsys, ".")
        assert (code, "warning: the environment variable" in out) == (0, True)
        assert run(capsys, ".", strict=True)[0] == 1

    def test_a_path_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("churn.yaml").write_text(BAD)
        code, out, err = run(capsys, "churn.yaml", "no\x1b[31m", output="json")
        assert (code, out) == (2, "")
        assert err == "airflow mlops lint: there is no file or folder 'no\\x1b[31m'\n"

    def test_the_environment(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("churn.yaml").write_text(GOOD + "environments: {a: {owner: 1}, b: {}}\n")
        assert [run(capsys, ".", environment=e)[0] for e in (None, "a", "b")] == [1, 1, 0]

    def test_columns_of_local_data(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        Path("churn.yaml").write_text(GOOD)
        Path("data").mkdir()
        Path("data/churn.csv").write_text("id,churn\n1,0\n")
        code, out, _ = run(capsys, ".")
        assert (code, "the data has no column `churned`" in out) == (1, True)

    def test_a_connection_that_is_not_there(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Absent:
            @property
            def data_root(self) -> str:
                raise RuntimeError("no database")

        monkeypatch.setattr("airflow_mlops.hooks.mlops.MLOpsHook", Absent)
        Path("churn.yaml").write_text(GOOD)
        assert run(capsys, ".")[0] == 0

    def test_text_that_the_terminal_cannot_show(self, monkeypatch: pytest.MonkeyPatch) -> None:
        out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", out)
        module._print_list([issue(message="Straße")], 1)
        out.flush()
        assert b"Stra\\xdfe" in out.buffer.getvalue()  # type: ignore[attr-defined]


class TestSarif:
    def test_what_the_specification_requires(self) -> None:
        issues = [issue(), issue(severity="warning", suggestion=None, code="new"), issue(line=9, file="ä b#.yaml")]
        log = sarif(issues)
        jsonschema.validate(log, SARIF)
        (result, warning, other) = log["runs"][0]["results"]
        assert result["message"]["text"] == "unknown key `sorce` in `data`\nWhat to do: did you mean `source`?"
        assert [r["level"] for r in (result, warning, other)] == ["error", "warning", "error"]
        rules = log["runs"][0]["tool"]["driver"]["rules"]
        names = [rules[r["ruleIndex"]]["id"] for r in log["runs"][0]["results"]]
        assert names == ["extra_forbidden", "new", "extra_forbidden"]
        where = other["locations"][0]["physicalLocation"]
        assert where["artifactLocation"] == {"uri": "%C3%A4%20b%23.yaml"}
        assert where["region"] == {"startLine": 9, "startColumn": 8}

    def test_uris(self, folder: Path) -> None:
        assert uri(str(folder / "sub" / "a.yaml")) == "sub/a.yaml"
        assert uri("/no where/a.yaml") == "file:///no%20where/a.yaml"
        assert uri(os.fsdecode(b"\xff.yaml")) == "%FF.yaml"

    def test_no_issue_is_an_empty_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("churn.yaml").write_text(GOOD)
        code, out, _ = run(capsys, ".", output="sarif")
        log = json.loads(out)
        jsonschema.validate(log, SARIF)
        assert (code, log["runs"][0]["results"]) == (0, [])


class TestLocalColumns:
    @pytest.fixture
    def root(self, folder: Path) -> Path:
        (folder / "data" / "sub").mkdir(parents=True)
        return folder / "data"

    def known(self, root: Path, source: str) -> list[str] | None:
        return LocalColumns(str(root))(load_text(GOOD.replace("churn.csv", f'"{source}"')))

    def test_csv(self, root: Path) -> None:
        (root / "a.csv").write_bytes(b'\xef\xbb\xbf\r\nid,"a,b","c\nd"\r\n1,2,3\r\n')
        assert self.known(root, "a.csv") == ["id", "a,b", "c\nd"]
        assert self.known(root, str(root / "a.csv")) == ["id", "a,b", "c\nd"]
        (root / "b.csv.gz").write_bytes(gzip.compress(b"x,y\n1,2\n" + b"1,2\n" * HEAD_BYTES))
        assert self.known(root, "b.csv.gz") == ["x", "y"]

    def test_parquet_and_the_first_of_a_glob(self, root: Path) -> None:
        pq.write_table(pa.table({"id": [1], "__index_level_0__": [1]}), root / "sub" / "a.parquet")
        (root / "sub" / "b.csv").write_text("other\n")
        assert self.known(root, "sub/*") == ["id"]
        assert self.known(root, "sub") == ["id"]

    @pytest.mark.parametrize(
        "content",
        [b"", b"a,a\n", b"\xff,b\n", b"x" * (HEAD_BYTES + 1), b'"open,b\n' + b"x\n" * HEAD_BYTES],
        ids=["empty", "twice", "not UTF-8", "no end", "open quote"],
    )
    def test_a_head_that_says_nothing(self, root: Path, content: bytes) -> None:
        (root / "a.csv").write_bytes(content)
        assert self.known(root, "a.csv") is None

    @pytest.mark.parametrize(
        "source",
        ["no.csv", "s3://b/a.csv", "${conn:lake}/a.csv", "{{ window.start }}.csv", "../outside.csv", "link.csv",
         "a.txt", "broken.parquet"],
    )  # fmt: skip
    def test_what_is_not_asked(self, root: Path, source: str) -> None:
        for path in (root / "a.txt", root.parent / "outside.csv", root / "broken.parquet"):
            path.write_text("id\n")
        (root / "link.csv").symlink_to("../outside.csv")
        assert self.known(root, source) is None

    def test_no_root(self, folder: Path) -> None:
        assert self.known(folder / "data", "a.csv") is None
        assert LocalColumns("s3://bucket")(load_text(GOOD)) is None


def test_the_program_prints_json_alone_without_database_and_pandas(folder: Path) -> None:
    Path("churn.yaml").write_text(BAD)
    Path("data").mkdir()
    pq.write_table(pa.table({"churned": [1]}), folder / "data" / "churn.parquet")
    Path("other.yaml").write_text(GOOD.replace("churn.csv", "churn.parquet").replace("churn\n", "other\n"))
    code = (
        "import sys\nfrom airflow.__main__ import main\n"
        "sys.argv = ['airflow', 'mlops', 'lint', '.', '--output', 'json']\n"
        "try:\n    main()\nfinally:\n"
        "    print([m for m in ('pandas', 'sklearn') if m in sys.modules], file=sys.stderr)\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(folder / "home"),
        "AIRFLOW__MLOPS__DATA_ROOT": str(folder / "data"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nowhere/at/all.db",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1, done.stderr
    assert [record["path"] for record in json.loads(done.stdout)] == ["data.min_rows"]
    assert done.stderr.splitlines()[-1] == "[]"
