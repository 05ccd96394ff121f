"""``airflow mlops monitor history``, as Airflow's command line runs it."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from airflow.cli.cli_config import GroupCommand

from airflow_mlops.cli.definition import get_mlops_cli_commands
from airflow_mlops.config.models import Retrain
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.registry.checks import write_check
from airflow_mlops.store.local import LocalStore
from airflow_mlops.window import Window

CONFIG = Retrain(when=["drift"], cooldown="20d")


@pytest.fixture
def history(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """``history("churn", "--last", "3")``: exit code, output, errors; the terminal has 80 columns."""
    (mlops,) = get_mlops_cli_commands()
    (group,) = (c for c in mlops.subcommands if c.name == "monitor")
    assert isinstance(group, GroupCommand)
    (command,) = group.subcommands
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words: str) -> tuple[int, str, str]:
        parser = ArgumentParser()
        for argument in command.args:
            argument.add_to_parser(parser)
        code = 0
        try:
            command.func(parser.parse_args(words))
        except SystemExit as e:
            code = int(e.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def churn(registry_store: LocalStore) -> None:
    """Four months: a first training, drift that is held back, calm, drift that trains."""
    ledger = Ledger(registry_store, "churn")
    ledger.claim(None, start="initial", at=datetime(2013, 2, 1), run="i", config=CONFIG, op_id="i")
    for month, alarm in ((2, True), (3, False), (4, True)):
        window = Window.of(f"2013-{month:02d}-01", f"2013-{month + 1:02d}-01")
        name = "scheduled_departure_hour_of_the_day"
        result = {
            "verdict": "drift" if alarm else "no_drift", "sentence": "…",
            "columns": [{"name": f"{name}_{n}", "drifted": alarm} for n in range(5)],
        }  # fmt: skip
        write_check(registry_store, "churn", window, "prediction", {"rows": 10, "version": 1})
        write_check(registry_store, "churn", window, "drift", result)
        if alarm:
            at = datetime(2013, 2, 10, tzinfo=UTC) if month == 2 else window.end
            asked = ledger.request(["drift"], evidence=f"{month}", at=at, config=CONFIG, op_id=f"a{month}")
            if asked.grant:
                ledger.claim(asked.grant, start="retrain", at=at, run="r", config=CONFIG, op_id="r")


@pytest.mark.usefixtures("churn")
def test_the_table_fits_80_columns_and_says_why(history: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = history("churn")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    assert words.startswith(
        "churn: 5 windows, 2 with an alarm, 1 request granted, 1 held back, 2 trainings, 0 promoted"
    )
    assert "until 2013-02-10 nothing was scored drift suppressed: cool-down until" in words
    assert "2013-03 no drift no alarm" in words
    for column in ("window", "seen", "what followed"):
        assert column in out


@pytest.mark.usefixtures("churn")
def test_the_last_windows_as_json(history: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = history("churn", "--last", "2", "--output", "json")
    assert code == 0
    march, april = json.loads(out)
    assert march["window"]["start"] == "2013-03-01T00:00:00+00:00"
    assert (march["checks"][0]["alarm"], march["followed"]) == (False, "no alarm")
    assert april["requests"][0]["granted"] is True
    assert april["trainings"][0]["run"] == "r"


@pytest.mark.usefixtures("churn")
def test_what_cannot_be_shown(history: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = history("chrun")
    assert (code, out) == (1, "")
    assert "nothing has been checked, trained or asked for 'chrun'" in err
    assert "--last 0 leaves nothing" in history("churn", "--last", "0")[2]
