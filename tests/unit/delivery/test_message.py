"""The message of a deployment: what people wrote cannot be taken for anything else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.delivery.message import parse_message, write_message

FIELDS: dict[str, Any] = {
    "action": "deploy",
    "project": "crm",
    "environment": "staging",
    "digest": "ab" * 32,
    "content": "cd" * 32,
    "source": "1" * 40,
    "ref": None,
    "signed_by": None,
    "restores": None,
    "by": "ana",
    "reason": "",
    "break_glass": False,
    "operation": "op",
}


def test_as_it_is_written() -> None:
    assert write_message(FIELDS | {"reason": "new features"}).split("\n") == [
        "Deploy crm abababababab in staging",
        "",
        "Action: deploy",
        "Project: crm",
        "Environment: staging",
        f"Bundle-Digest: {'ab' * 32}",
        f"Bundle-Content: {'cd' * 32}",
        f"Source-Commit: {'1' * 40}",
        "By: ana",
        "Reason: new features",
        "Operation: op",
    ]


@given(by=st.text(), reason=st.text(), back=st.booleans(), glass=st.booleans())
def test_whatever_people_write_stays_in_its_field(by: str, reason: str, back: bool, glass: bool) -> None:
    said = FIELDS | {"by": f"x{by}", "reason": reason, "break_glass": glass}
    if back:
        said |= {"action": "rollback", "restores": "2" * 40}
    message = write_message(said)
    found = parse_message(message)
    assert found is not None
    message.encode()
    texts = {"by", "reason"}
    assert {k: v for k, v in found.items() if k not in texts} == {k: v for k, v in said.items() if k not in texts}
    assert parse_message(write_message(found)) == found


@given(st.text())
def test_other_messages_are_none_of_ours(text: str) -> None:
    assert parse_message(text) is None


@pytest.mark.parametrize(
    "change",
    [
        ("Action: deploy", "Action: other"),
        ("Action: deploy", "Action: rollback"),
        ("Project: crm\n", ""),
        ("By: ana", "By: ana\nBy: eve"),
        ("By: ana", "By: ana "),
        ("Operation: op", "Operation: op\n\nand more"),
        ("Deploy crm", "Deploy erp"),
        (f"Source-Commit: {'1' * 40}", "Source-Commit: HEAD"),
        ("Environment: staging", "Environment: staging\nUnknown: x"),
    ],
)
def test_a_message_that_was_changed(change: tuple[str, str]) -> None:
    message = write_message(FIELDS)
    assert parse_message(message) == FIELDS
    assert change[0] in message
    assert parse_message(message.replace(*change)) is None
