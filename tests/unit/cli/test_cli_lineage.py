"""How commands name a model, and ``airflow mlops lineage``."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.cli.definition import get_mlops_cli_commands
from airflow_mlops.cli.lineage import lineage
from airflow_mlops.cli.model_ref import ModelRef
from airflow_mlops.exceptions import ConfigError, VersionNotFound
from airflow_mlops.registry import Registry
from airflow_mlops.registry.checks import write_check
from airflow_mlops.store import LocalStore
from airflow_mlops.store.content import put_json
from airflow_mlops.window import Window

COMMIT = "c0ffee" + "0" * 34


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}/store")
    return LocalStore(tmp_path / "store")


def arguments(*words: str) -> Namespace:
    (command,) = (c for group in get_mlops_cli_commands() for c in group.subcommands if c.name == "lineage")
    parser = ArgumentParser()
    for argument in command.args:
        argument.add_to_parser(parser)
    return parser.parse_args(words)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command; what it prints."""

    def run(*words: str) -> str:
        lineage(arguments(*words))
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command, which must end with exit code 1; what it writes to standard error."""

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            lineage(arguments(*words))
        assert ended.value.code == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        return " ".join(printed.err.split())

    return run


def fill(store: LocalStore) -> None:
    file = {"uri": f"/lake/{'long-' * 30}name.parquet", "size": 12345, "version": "v"}
    source = {"kind": "files", "uri": "lake/*.parquet", "files": [file] * 5, "version": "1", "from": "e" * 64}
    digest = put_json(store, {"kind": "snapshot", "source": source})
    window = Window.of("2013-01-01", "2013-02-01")
    record: dict[str, Any] = {
        "snapshot": {
            "snapshot": digest, "fingerprint": "f1" * 32, "rows": 12345, "columns": 8, "window": window.to_dict(),
            "validation": {"sentence": "all 3 checks passed"},
        },
        "model": {
            "digest": "d" * 64, "bytes": 54321, "format": "skops", "signature": {"key": "0123456789abcdef"},
            "environment": {"python": "3.11.7", "platform": "Linux", "packages": {f"p{i}": "1.2.3" for i in range(9)}},
        },
        "config": {"features": {"callable": "pkg.features:build"}},
        "config_hash": "c" * 64,
        "code": {"git": COMMIT, "files": {"/code/features.py": "5eed" * 16}},
        "rows": {"train": 10000, "holdout": 2345},
        "seed": 7,
        "estimator": "sklearn.ensemble.RandomForestClassifier",
        "params": {f"parameter_{i}": i for i in range(12)},
        "run": {"dag_id": "churn__train", "run_id": "manual__2026-01-01T00:00:00+00:00"},
    }  # fmt: skip
    registry = Registry(store, "churn")
    for number in (1, 2):
        registry.register(record, op_id=f"r{number}")
    metric = {"candidate": 0.7123, "candidate_low": 0.6, "candidate_high": 0.8, "champion": 0.65}
    registry.annotate(2, "evaluation", {"champion": 1, "metrics": {"roc_auc": metric, "recall": metric}}, op_id="e")
    gate = {
        "verdict": "passed",
        "sentence": "roc_auc 0.712 reaches 0.6, and this sentence is longer than a line is wide",
    }
    registry.annotate(2, "gates", {"verdict": "rejected", "results": [gate]}, op_id="g1")
    registry.annotate(2, "gates", {"verdict": "passed", "results": [gate, gate]}, op_id="g2")
    registry.annotate(2, "approval", {"by": "ann", "answer": ["Approve"]}, op_id="a")
    registry.promote(1, expected=None, op_id="p1", reason="first")
    registry.promote(2, expected=1, op_id="p2", reason="better " * 30, by="ann")
    registry.annotate(2, "handover", {"bundle": "b", "uri": "s3://bucket/handover/" + "b" * 90 + ".zip"}, op_id="h")
    registry.tag(2, "team", "retention", op_id="t")
    write_check(store, "churn", window, "prediction", {"version": 2, "rows": 5000, "output": "predictions/churn/x"})


# --- naming a model ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("churn", ModelRef("churn")),
        ("churn@champion", ModelRef("churn")),
        ("churn@challenger", ModelRef("churn", None, "challenger")),
        ("churn:7", ModelRef("churn", number=7)),
        ("churn:v7", ModelRef("churn", number=7)),
        ("churn[LGA]:7", ModelRef("churn", "LGA", number=7)),
        ("churn[LGA]@challenger", ModelRef("churn", "LGA", "challenger")),
        ("churn[LGA]", ModelRef("churn", "LGA")),
        ("churn[a]:[b]@x]:12", ModelRef("churn", "a]:[b]@x", number=12)),
        ("a.b-c_d:1", ModelRef("a.b-c_d", number=1)),
    ],
)
def test_forms(text: str, ref: ModelRef) -> None:
    assert ModelRef.parse(text) == ref


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' names no model"),
        ("churn LGA", "names no model"),
        ("churn[]", "names no model"),
        ("churn[LGA", "names no model"),
        ("churn@champion:7", "names no model"),
        ("churn@champoin", "did you mean 'champion'?"),
        ("churn@best", "the aliases are champion and challenger"),
        ("churn@", "there is no alias ''"),
        ("churn:champion", "an alias stands after '@': churn@champion"),
        ("churn:", "'' is no version"),
        ("churn:0", "'0' is no version"),
        ("churn:-1", "'-1' is no version"),
        ("churn:1.5", "'1.5' is no version"),
        ("churn:²", "'²' is no version"),
    ],
)
def test_what_names_no_model(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ModelRef.parse(text)
    assert message in str(error.value)


@given(
    st.builds(
        ModelRef,
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,10}", fullmatch=True),
        st.none() | st.text(min_size=1),
        st.sampled_from(["champion", "challenger"]),
        st.none(),
    )
    | st.builds(
        ModelRef,
        st.from_regex(r"[A-Za-z0-9]+", fullmatch=True),
        st.none() | st.text(min_size=1),
        st.just("champion"),
        st.integers(1, 10**9 - 1),
    )
)
def test_a_name_reads_back(ref: ModelRef) -> None:
    assert ModelRef.parse(str(ref)) == ref


@given(st.text())
def test_any_text_is_a_name_or_a_clear_error(text: str) -> None:
    found = None
    with suppress(ConfigError):
        found = ModelRef.parse(text)
    assert found is None or found.pipeline


def test_finding_a_version(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    for number in range(3):
        registry.register({}, op_id=str(number))
    registry.promote(2, expected=None, op_id="p", reason="r")
    registry.set_challenger(3, op_id="c")
    found = [ModelRef.parse(t).find(store).number for t in ("churn", "churn@champion", "churn@challenger", "churn:1")]
    assert found == [2, 2, 3, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chrun", "did you mean churn?"),
        ("zzz", "the pipelines are churn, fleet"),
        ("churn", "churn has no champion\n  What to do: its newest version is churn:2"),
        ("churn@challenger", "churn has no challenger"),
        ("churn:3", "there is no churn:3\n  What to do: its versions are 1 to 2"),
        ("churn[LGA]:1", "churn is no fleet: it has one model, without a key\n  What to do: write churn:1"),
        ("fleet:1", "fleet has a model for each of 2 keys: JFK, LGA\n  What to do: name one of them: fleet[JFK]:1"),
        ("fleet[LG]", "fleet has no model for 'LG'\n  What to do: did you mean LGA?"),
        ("fleet[LGA]:2", "there is no fleet[LGA]:2\n  What to do: its only version is 1"),
    ],
)
def test_what_is_not_there_is_told_with_what_is_near(store: LocalStore, text: str, message: str) -> None:
    for number in (1, 2):
        Registry(store, "churn").register({}, op_id=str(number))
    for key in ("LGA", "JFK"):
        Registry(store, "fleet").register({}, op_id=key, key=key)
    with pytest.raises(VersionNotFound) as error:
        ModelRef.parse(text).find(store)
    assert message in str(error.value)


def test_an_empty_store(store: LocalStore) -> None:
    with pytest.raises(VersionNotFound, match=r"check \[mlops\] store, or train first"):
        ModelRef("churn").find(store)


# --- the command ---------------------------------------------------------------------------------


def test_the_tree_of_a_version(store: LocalStore, shown: Callable[..., str]) -> None:
    fill(store)
    text = shown("churn")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("churn v2  champion  registered 20")
    branches = [line[3:].split()[0] for line in lines if line.startswith(("├─", "└─"))]
    assert branches == [
        "data", "config", "code", "environment", "model", "metrics", "verdicts", "approvals", "deployments",
    ]  # fmt: skip
    flat = " ".join(text.replace("│", " ").split())
    for said in (
        "tags: team=retention",
        "12,345 rows × 8 columns",
        "window 2013-01-01 to 2013-02-01, end excluded",
        "and 2 more files",
        "validation: all 3 checks passed",
        "10,000 rows for training, 2,345 held out",
        "features by pkg.features:build",
        f"commit {COMMIT}",
        "/code/features.py 5eed5eed5eed",
        "signed by 0123456789abcdef",
        "recall 0.7123 (0.6 … 0.8); champion v1 0.65",
        "before, 20",
        "Approve by ann, 20",
        "promoted in place of v1, approved by ann: better better",
        "handed over as s3://bucket/",
        "predicted once, 5,000 rows, windows 2013-01-01 to 2013-02-01",
    ):
        assert said in flat, said
    assert "replaced by v2" in " ".join(shown("churn:1").split())


def test_a_version_of_which_little_is_known(store: LocalStore, shown: Callable[..., str]) -> None:
    Registry(store, "churn").register({}, op_id="r")
    text = shown("churn:1")
    assert text.count("not recorded") == 5
    assert "deployments   none" in text


def test_as_json(store: LocalStore, shown: Callable[..., str]) -> None:
    fill(store)
    told = json.loads(shown("churn:2", "--output", "json"))
    assert list(told) == [
        "model", "run", "data", "config", "code", "environment", "metrics", "verdicts", "approvals", "deployments",
    ]  # fmt: skip
    uses = json.loads(shown("--code", COMMIT, "--output", "json"))
    assert [(u["pipeline"], u["version"], u["status"]) for u in uses] == [
        ("churn", 1, "candidate"), ("churn", 2, "champion"),
    ]  # fmt: skip


def test_backwards(store: LocalStore, shown: Callable[..., str]) -> None:
    fill(store)
    text = shown("--snapshot", "f1" * 32)
    assert [line.split("  ")[0] for line in text.splitlines() if not line.startswith(" ")] == ["churn v1", "churn v2"]
    assert "   equal rows, by their fingerprint" in text
    assert max(map(len, shown("--data", "lake/*.parquet").splitlines())) <= 80
    assert shown("--code", "abcdef") == "No version of any pipeline: --code abcdef\n"


def test_one_thing_at_a_time(store: LocalStore, refused: Callable[..., str]) -> None:
    assert "lineage needs one thing to tell of What to do: name a model" in refused()
    assert "and was given 2" in refused("churn", "--code", COMMIT)
    assert "and was given 2" in refused("--data", "x", "--code", COMMIT)
    assert "'HEAD' is no commit or sha256" in refused("--code", "HEAD")
