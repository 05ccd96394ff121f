"""``airflow mlops registry list|show|history|diff``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_mlops.registry import Registry
from airflow_mlops.registry.compare import PARTS
from airflow_mlops.store import LocalStore, put_blob

Run = Callable[..., Any]


def fits(text: str) -> bool:
    return max(map(len, text.splitlines())) <= 80


def test_every_pipeline_in_a_line(churn: Registry, registry_store: LocalStore, run: Run) -> None:
    fleet = Registry(registry_store, "fleet")
    records = {key: {"model": {"digest": "a" * 64}} for key in ("LGA", "JFK", "EWR")}
    made = fleet.register_many(records, op_id="many")
    fleet.promote(made["JFK"].number, expected=None, op_id="p", reason="x", key="JFK")
    done = run("list")
    rows = {line.split()[0]: line.split() for line in done.out.splitlines() if line.startswith((" churn", " fleet"))}
    assert rows["churn"][1:3] == ["v2", "3"]
    assert rows["churn"][-1] == "promote"
    assert rows["fleet"][1:5] == ["1", "of", "3", "3"]
    assert fits(done.out)
    found = json.loads(run("list", "--output", "json").out)
    assert [(s["pipeline"], s["champion"], s["versions"]) for s in found] == [("churn", 2, 3), ("fleet", None, 3)]
    keys = json.loads(run("list", "fleet", "--output", "json").out)
    assert [(m["key"], m["champion"]) for m in keys] == [("EWR", None), ("JFK", 1), ("LGA", None)]
    assert [m["number"] for m in json.loads(run("list", "fleet[JFK]", "--output", "json").out)] == [1]


def test_the_versions_of_one(churn: Registry, run: Run) -> None:
    churn.tag(2, "stage", "prod", op_id="t")
    churn.retire(3, op_id="x", reason="leaks")
    done = run("list", "churn")
    rows = [line.split() for line in done.out.splitlines() if line.startswith(" v") and "status" not in line]
    assert [row[:2] for row in rows] == [["v1", "candidate"], ["v2", "champion"], ["v3", "retired"]]
    assert "stage=prod" in rows[1]
    assert "0.92" in rows[1]
    assert fits(done.out)
    assert json.loads(run("list", "churn", "--output", "json").out)[1]["tags"] == {"stage": "prod"}


def test_what_is_not_there_is_said_with_what_is_near(churn: Registry, run: Run) -> None:
    for command in ("list", "history", "show"):
        done = run(command, "chrun")
        assert (done.code, done.out) == (1, "")
        assert "did you mean churn?" in done.err


def test_an_empty_store_is_no_error(registry_store: LocalStore, run: Run) -> None:
    assert "There are no pipelines" in run("list").out
    assert run("list", "--output", "json").out == "[]\n"


def test_a_version_is_told_without_credentials(churn: Registry, registry_store: LocalStore, run: Run) -> None:
    card = put_blob(registry_store, b"# card")
    churn.annotate(2, "card", {"markdown": card}, op_id="c")
    gates = {"verdict": "passed", "sentence": "passed: roc_auc 0.92 reaches 0.7", "champion": 1, "results": []}
    churn.annotate(2, "gates", gates, op_id="g")
    churn.annotate(2, "approval", {"by": "ana", "answer": ["Approve"]}, op_id="a")
    done = run("show", "churn")
    assert done.out.startswith("churn v2  champion\n")
    said = " ".join(done.out.split())
    for part in (
        "skops 000000000000, 20 bytes, not signed", "2 columns; predicts left", "LogisticRegression, seed 7 C=0.5",
        "roc_auc 0.92", "passed: roc_auc 0.92 reaches 0.7", "Approve by ana", f"blobs/{card[:2]}/{card}",
    ):  # fmt: skip
        assert part in said, part
    whole = run("show", "churn:2", "--output", "json").out
    told = json.loads(whole)
    assert (told["version"], told["record"]["params"], told["notes"]["gates"]) == (2, {"C": 0.5}, [gates])
    assert told["record"]["config"]["data"]["source"] == "s3://lake/churn.csv"
    assert "secret" not in whole + done.out


def test_text_from_elsewhere_cannot_rule_the_terminal(churn: Registry, run: Run) -> None:
    churn.tag(2, "note", "\x1b[31mred\nline", op_id="t")
    churn.retire(3, op_id="x", reason="\x1b]0;title\x07")
    for done in (run("list", "churn"), run("show", "churn"), run("history", "churn")):
        assert "\x1b" not in done.out
        assert "\x07" not in done.out


def test_history_is_who_did_what_and_why(churn: Registry, run: Run) -> None:
    churn.annotate(2, "card", {}, op_id="c")
    churn.rollback(expected=2, op_id="b", reason="worse in production", by="bo")
    done = run("history", "churn")
    assert done.out.split("rollback")[1].split()[:4] == ["v2", "→", "v1", "bo"]
    assert "worse in production" in done.out
    assert "card" not in done.out
    assert fits(done.out)
    assert "note card" in run("history", "churn", "--notes").out
    rows = json.loads(run("history", "churn", "--output", "json").out)
    assert [row["action"] for row in rows] == ["register"] * 3 + ["promote"] * 2 + ["rollback"]


def test_what_people_said_is_history_too(churn: Registry, run: Run) -> None:
    churn.annotate(3, "approval", {"by": "lea", "answer": ["Reject"], "answered_at": "2026-03-01T09:30"}, op_id="a")
    churn.annotate(3, "approval", {"by": None, "answer": ["Reject"], "answered_at": "2026-03-02T09:30"}, op_id="b")
    one, two = (line.split()[2:] for line in run("history", "churn").out.splitlines() if " approval " in line)
    assert (one, two) == (["approval", "v3", "lea", "Reject"], ["approval", "v3", "–", "Reject"])
    said = run("show", "churn:3").out
    assert "2026-03-01 09:30 Reject by lea" in said
    assert "2026-03-02 09:30 Reject by nobody: it timed out" in said


def test_what_differs_between_two(churn: Registry, run: Run) -> None:
    done = run("diff", "churn:1", "churn:2")
    lines = [line.split() for line in done.out.splitlines()]
    assert ["params", "C", "1", "0.5"] in lines
    assert ["features", "fee", "–", "number"] in lines
    assert ["metrics", "roc_auc", "0.91", "0.92"] in lines
    assert "the same: data, config, code, environment" in done.out
    assert fits(done.out)
    found = json.loads(run("diff", "churn:1", "churn@champion", "--output", "json").out)
    assert tuple(found["differences"]) == PARTS
    assert found["differences"]["params"] == {"C": [1.0, 0.5]}
    assert "the same: " + ", ".join(PARTS) in run("diff", "churn:1", "churn:1").out


@pytest.mark.parametrize("words", [("show", "churn:9"), ("diff", "churn:1", "churn@best"), ("list", "a b")])
def test_a_wrong_name_ends_with_1_and_pure_output(churn: Registry, run: Run, words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.code, done.out) == (1, "")
    assert "What to do" in done.err


def test_history_tells_tags_and_one_model_of_a_fleet(registry_store: LocalStore, run: Run) -> None:
    fleet = Registry(registry_store, "delays")
    fleet.register_many({"LGA": {"model": {}}, "JFK": {"model": {}}}, op_id="r")
    fleet.tag(1, "stage", "prod", op_id="t1", key="LGA")
    fleet.tag(1, "stage", None, op_id="t2", key="LGA")
    fleet.tag(1, "stage", 0, op_id="t3", key="JFK")
    shown = run("history", "delays[LGA]")
    assert shown.code == 0, shown.err
    assert "JFK" not in shown.out
    assert [line.split("–")[-1].strip() for line in shown.out.splitlines() if " tag " in line] == [
        "stage=prod",
        "stage removed",
    ]
    rows = json.loads(run("history", "delays", "--output", "json").out)
    assert [(r["key"], r["kind"], r["reason"]) for r in rows if r["action"] == "tag"] == [
        ("LGA", "stage", "prod"), ("LGA", "stage", None), ("JFK", "stage", "0"),
    ]  # fmt: skip
    assert "delays has no model for 'LGB'" in run("history", "delays[LGB]").err


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (("list", "churn:2"), "`airflow mlops registry show churn:2`"),
        (("list", "churn@champion"), "`airflow mlops registry show churn@champion`"),
        (("history", "churn:2"), "`airflow mlops lineage churn:2`"),
    ],
)
def test_one_version_is_not_a_list(churn: Registry, run: Run, words: tuple[str, ...], instead: str) -> None:
    done = run(*words)
    assert (done.code, done.out) == (1, "")
    assert instead in done.err
