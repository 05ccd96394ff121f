"""A plugin of pytest: writes down which test runs and how it ended, at once, so that a killed run can be told of."""

from __future__ import annotations

import json
import os
from typing import Any

from airflow_mlops.delivery.process import end_with_parent, limit_files

VARIABLE = "AIRFLOW_MLOPS_TEST_RECORD"
_MESSAGE = 4000


def _write(record: dict[str, Any]) -> None:
    path = os.environ.get(VARIABLE)
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def read_record(text: str) -> list[dict[str, Any]]:
    """Return what was written down; a line that pytest was killed in the middle of is left out."""
    events = []
    for line in text.splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return [event for event in events if isinstance(event, dict) and "event" in event]


def pytest_configure(config: Any) -> None:
    """Tests end with whoever runs them, and fill no disk."""
    if os.environ.get(VARIABLE):
        end_with_parent()
        limit_files()


def pytest_collectstart(collector: Any) -> None:
    """Note which file is imported: that can hang, too."""
    _write({"event": "collect", "name": collector.nodeid})


def pytest_collectreport(report: Any) -> None:
    """Note what could not be imported."""
    if report.failed:
        _write({"event": "end", "name": report.nodeid, "outcome": "failed", "message": _text(report), "seconds": 0.0})


def pytest_runtest_logstart(nodeid: str, location: Any) -> None:
    """Note the test that begins."""
    _write({"event": "start", "name": nodeid})


def pytest_runtest_logreport(report: Any) -> None:
    """Note how a test ended; set-up and tear-down count where they fail."""
    if report.when == "call" or report.outcome != "passed":
        said = {"outcome": report.outcome, "message": _text(report), "seconds": round(report.duration, 3)}
        _write({"event": "end", "name": report.nodeid, **said})


def pytest_sessionfinish(session: Any, exitstatus: Any) -> None:
    """Note that pytest came to its end; a test that ends the process does not let it."""
    _write({"event": "finish", "code": int(exitstatus), "collected": session.testscollected})


def _text(report: Any) -> str:
    if report.outcome == "passed":
        return ""
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[-1])[:_MESSAGE]
    return str(report.longrepr or "")[-_MESSAGE:]
