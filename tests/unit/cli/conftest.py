"""The commands of ``airflow mlops registry``, run as Airflow's command line runs them."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow.cli.cli_config import GroupCommand

from airflow_mlops.cli.definition import get_mlops_cli_commands
from airflow_mlops.registry import Registry
from airflow_mlops.store import LocalStore


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def registry_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """An empty store that ``[mlops] store`` names."""
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}/store")
    monkeypatch.delenv("AIRFLOW__MLOPS__MLOPS_CONN_ID", raising=False)
    return LocalStore(tmp_path / "store")


@pytest.fixture
def churn(registry_store: LocalStore) -> Registry:
    """v1 and v2 were champions, v2 is, v3 is a candidate; records as training writes them, as far as they are told."""
    registry = Registry(registry_store, "churn")
    for number, params in ((1, {"C": 1.0}), (2, {"C": 0.5}), (3, {"C": 0.5})):
        columns = ("age", "fee")[:number]
        record: dict[str, Any] = {
            "model": {"format": "skops", "digest": f"{number:064x}", "bytes": 10 * number},
            "schema": {
                "features": [{"name": n, "kind": "number", "categories": None} for n in columns],
                "target": "left", "classes": [0, 1], "positive": 1, "excluded": [],
            },
            "task": "classification",
            "snapshot": {},
            "config": {"data": {"source": "s3://key:secret@lake/churn.csv?sig=abc"}, "features": None},
            "estimator": "sklearn.linear_model.LogisticRegression",
            "params": params,
            "seed": 7,
            "metrics": {"roc_auc": 0.9 + number / 100},
        }  # fmt: skip
        registry.register(record, op_id=f"r{number}")
    registry.promote(1, expected=None, op_id="p1", reason="first")
    registry.promote(2, expected=1, op_id="p2", reason="better", by="ana")
    return registry


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """``run("list", "--output", "json")``: the words after ``airflow mlops registry``."""
    (mlops,) = get_mlops_cli_commands()
    (group,) = (c for c in mlops.subcommands if c.name == "registry")
    assert isinstance(group, GroupCommand)

    def call(name: str, *words: str) -> Ended:
        (command,) = (c for c in group.subcommands if c.name == name)
        parser = ArgumentParser()
        for argument in command.args:
            argument.add_to_parser(parser)
        code = 0
        try:
            command.func(parser.parse_args(words))
        except SystemExit as e:
            code = int(e.code or 0)
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return call
