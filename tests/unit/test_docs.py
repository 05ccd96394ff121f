"""The documentation names what exists: links resolve, and the reference pages are whole."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from airflow_mlops.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
REFERENCE = ROOT / "docs" / "reference"


def prose(page: Path) -> str:
    """The page without its code, fenced or within a line."""
    text = re.sub(r"^( *)(```|~~~).*?^\1\2[ \t]*$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ +(.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    assert missing == []


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    linked = set(re.findall(r"\]\(([^)#\s]+)", index))
    pages = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")} - {"index.md"}
    assert pages - linked == set()


def test_every_operator_sensor_and_trigger_is_in_the_reference() -> None:
    page = (REFERENCE / "operators.md").read_text()
    info = get_provider_info()
    modules = [
        m for kind in ("operators", "sensors", "triggers") for part in info[kind] for m in part["python-modules"]
    ]
    missing = [
        f"{module}.{name}"
        for module in modules
        for name, found in vars(importlib.import_module(module)).items()
        if inspect.isclass(found)
        and found.__module__ == module
        and name.endswith(("Operator", "Sensor", "Trigger"))
        and name not in page
    ]
    assert missing == []
    for decorator in info["task-decorators"]:
        assert f"@task.{decorator['name']}" in page


def test_every_argument_of_an_operator_is_in_the_reference() -> None:
    page = (REFERENCE / "operators.md").read_text()
    for part in get_provider_info()["operators"]:
        for module in part["python-modules"]:
            for name, found in vars(importlib.import_module(module)).items():
                if inspect.isclass(found) and found.__module__ == module and name.endswith("Operator"):
                    row = next(line for line in page.splitlines() if f"`{name}`" in line)
                    own = [
                        argument.name
                        for argument in inspect.signature(found.__init__).parameters.values()
                        if argument.kind is argument.KEYWORD_ONLY
                        and argument.name not in ("pipeline", "mlops_conn_id", "notify")
                    ]
                    if "the same" not in row and name != "CheckOperator":
                        assert [a for a in own if f"`{a}`" not in row] == [], name


def test_every_option_is_in_the_reference() -> None:
    page = (REFERENCE / "configuration.md").read_text()
    for option in get_provider_info()["config"]["mlops"]["options"]:
        assert f"| `{option}` |" in page


def test_every_field_of_the_trigger_form_is_in_the_reference() -> None:
    from airflow_mlops.factory.builder import _FORM

    page = (REFERENCE / "configuration.md").read_text()
    assert [name for name in _FORM if f"`{name}`" not in page] == []


def test_the_reference_of_commands_is_up_to_date() -> None:
    from airflow_mlops.cli.reference import page

    assert (REFERENCE / "cli.md").read_text() == page(), (
        "run: python -m airflow_mlops.cli.reference > docs/reference/cli.md"
    )
