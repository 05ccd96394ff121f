"""Issues as SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/), for the CI systems that show it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow_mlops import __version__
from airflow_mlops.config.issues import Issue

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
# What a code alone does not say; others are shown as they are.
_RULES = {
    "column": "The data has no such column",
    "cross": "Keys that do not go together",
    "duplicate": "A key or name that is there twice",
    "duplicate_pipeline": "Two files with a pipeline of one name",
    "empty_folder": "A folder without pipeline files",
    "environments": "An overlay that cannot be used",
    "extends": "A file to start from that cannot be used",
    "extra_forbidden": "Unknown key",
    "import": "Code outside of [mlops] allowed_imports",
    "literal_error": "None of the values that are allowed",
    "missing": "A required key is missing",
    "tag": "A YAML tag",
    "too_many_for_one_loader": "More pipelines than one loader can load",
    "value_error": "A value of the wrong form",
    "variable_unset": "An environment variable that is not set",
    "yaml": "Not valid YAML",
}


def sarif(issues: Sequence[Issue]) -> dict[str, Any]:
    """The log of one run, as plain data; files below the current folder are relative to it."""
    codes = list(dict.fromkeys(issue.code for issue in issues))
    driver = {"name": "airflow mlops lint", "version": __version__, "rules": [_rule(code) for code in codes]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(issue, codes.index(issue.code)) for issue in issues],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    words = code.replace("_", " ").capitalize()
    return {"id": code, "shortDescription": {"text": _RULES.get(code, words)}}


def _result(issue: Issue, rule: int) -> dict[str, Any]:
    text = f"{issue.message}\nWhat to do: {issue.suggestion}" if issue.suggestion else issue.message
    region = {"startLine": issue.line, "startColumn": issue.column}
    return {
        "ruleId": issue.code,
        "ruleIndex": rule,
        "level": issue.severity,
        "message": {"text": text},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri(issue.file)}, "region": region}}],
    }


def uri(file: str) -> str:
    """A file as a URI: relative where it lies below the current folder, else absolute."""
    relative = os.path.relpath(file)
    if relative == os.pardir or relative.startswith(os.pardir + os.sep):
        return "file://" + quote(os.fsencode(os.path.abspath(file)))
    return quote(Path(relative).as_posix().encode(errors="surrogateescape"))
