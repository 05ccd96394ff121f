from __future__ import annotations

from airflow_mlops.cli.live import readable


def test_errors_of_a_structured_message_are_part_of_its_text() -> None:
    message = {
        "event": "Task failed with exception",
        "error_detail": [{"exc_type": "DataStale", "exc_value": "3 days old"}],
    }
    assert readable(message) == "Task failed with exception\nDataStale: 3 days old"
    assert readable({"event": "fine", "error_detail": None}) == "fine"
