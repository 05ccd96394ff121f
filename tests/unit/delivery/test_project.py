"""What a project consists of, and which pipelines a change touches."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_mlops.config.settings import Settings
from airflow_mlops.delivery.project import (
    Change,
    changes,
    check_packages,
    own_packages,
    read_pipelines,
    syntax_errors,
)
from airflow_mlops.delivery.tree import TreeFile, write_tree
from airflow_mlops.exceptions import ConfigError
from tests.unit.delivery.small_project import CHURN, FILES

Compare = Callable[..., list[Change]]


def tree_of(files: dict[str, str | None]) -> dict[str, TreeFile]:
    return {path: TreeFile(text.encode()) for path, text in files.items() if text is not None}


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Call it with what changes in the project."""
    numbers: Iterator[int] = iter(range(100))

    def read(files: dict[str, str | None], environment: str | None) -> dict:
        folder, tree = tmp_path / str(next(numbers)), tree_of(files)
        write_tree(tree, folder)
        return read_pipelines(folder, tree, Settings(environment=environment))

    def run(environment: str | None = None, **changed: str | None) -> list[Change]:
        return changes(read(FILES, environment), read(FILES | changed, environment))

    return run


def test_the_code_of_a_pipeline_is_what_it_imports(tmp_path: Path) -> None:
    files = FILES | {
        "signals/churn.py": "from . import one\nfrom .two import three\nimport pandas\n\ndef build(f):\n"
        "    import signals.deep.four as x\n    return f\n",
        "signals/one.py": "from signals import shared\n",
        "signals/two.py": "",
        "signals/deep/__init__.py": "",
        "signals/deep/four.py": "from ..five import y\nimport other.six\nfrom nowhere import z\n",
        "signals/five.py": "import signals.five\n",
        "signals/table.csv": "a\n",
        "other/__init__.py": "",
        "other/six.py": "def (",
        "other/seven.py": "",
        "third/table.csv": "",
    }
    tree = tree_of(files)
    write_tree(tree, tmp_path / "p")
    found = read_pipelines(tmp_path / "p", tree, Settings())["churn"]
    assert set(found.code) == {
        "signals/__init__.py", "signals/churn.py", "signals/one.py", "signals/shared.py", "signals/two.py",
        "signals/deep/__init__.py", "signals/deep/four.py", "signals/five.py", "signals/table.csv",
        "other/__init__.py", "other/six.py",
    }  # fmt: skip
    assert found.code["signals/table.csv"] == tree["signals/table.csv"].sha256


def test_a_script_recorded_behaviour_and_the_value_of_a_prediction_are_code(tmp_path: Path) -> None:
    text = CHURN.replace("estimator: sklearn.linear_model.LogisticRegression", 'command: "python ../fit.py {train}"')
    worth = '{value: {callable: "worth.money:of"}, at_least: 0.5}'
    text = text.replace("gates: [", f"gates: [{{behaviours: known.behaviours.yaml}}, {worth}, ")
    more = {
        "fit.py": "x",
        "worth/__init__.py": "",
        "worth/money.py": "",
        "pipelines/known.behaviours.yaml": "cases: []\n",
    }
    tree = tree_of(FILES | {"pipelines/churn.yaml": text} | more)
    write_tree(tree, tmp_path / "p")
    found = read_pipelines(tmp_path / "p", tree, Settings())["churn"]
    assert set(more) <= set(found.code)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"signals/churn.py": FILES["signals/churn.py"] + "x = 1\n"}, "signals/churn.py"),
        ({"signals/shared.py": "x = 1\n"}, "signals/shared.py"),
        ({"signals/shared.py": None}, "signals/shared.py"),
        ({"signals/__init__.py": "x = 1\n"}, "signals/__init__.py"),
        ({"pipelines/base.yaml": FILES["pipelines/base.yaml"].replace("crm", "ops")}, "configuration"),
        ({"pipelines/base.yaml": "owner: crm\nenvironments: {staging: {}, production: {owner: x}}\n"}, "configuration"),
        ({"pipelines/churn.yaml": CHURN.replace("@weekly", "@daily")}, "configuration"),
        ({"pipelines/churn.yaml": CHURN.replace("churn:build", "unused:build")},
         "configuration, signals/churn.py, signals/shared.py, signals/unused.py"),
    ],
)  # fmt: skip
def test_what_touches_a_pipeline(changed: dict, what: str, compare: Compare) -> None:
    (change,) = compare(**changed)
    assert (change.name, change.what) == ("churn", what)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"signals/unused.py": "x = 2\n"},
        {"loader.py": "x"},
        {"README.md": "x"},
        {"pipelines/churn.yaml": "# a comment\n" + CHURN.replace("level: 1", "level:  1   # one")},
        {"pipelines/churn.yaml": CHURN.replace("extends: base.yaml", "owner: crm\nextends: base.yaml")},
    ],
)
def test_what_does_not_touch_it(changed: dict, compare: Compare) -> None:
    assert compare(**changed) == []


def test_in_one_environment_the_others_do_not_count(compare: Compare) -> None:
    base = "owner: crm\nenvironments: {staging: {owner: x}, production: {}}\n"
    assert compare("production", **{"pipelines/base.yaml": base}) == []
    (change,) = compare("staging", **{"pipelines/base.yaml": base})
    assert change.before is not None
    assert change.after is not None
    assert (change.before.values["staging"]["owner"], change.after.values["staging"]["owner"]) == ("crm", "x")


def test_new_removed_renamed(compare: Compare) -> None:
    found = compare(**{"pipelines/churn.yaml": CHURN.replace("pipeline: churn", "pipeline: leaving")})
    assert [(c.name, c.what) for c in found] == [("churn", "removed"), ("leaving", "new")]


def test_a_file_with_errors_is_left_to_lint(compare: Compare) -> None:
    (change,) = compare(**{"pipelines/churn.yaml": CHURN + "tagret: x\n"})
    assert change.what == "removed"


def test_the_own_packages() -> None:
    tree = tree_of(FILES | {"tests/__init__.py": "", "dags/__init__.py": "", "a-b/__init__.py": "", "c/d.py": ""})
    assert own_packages(tree) == ("signals",)


@pytest.mark.parametrize("name", ["os", "json", "pandas", "airflow", "airflow_mlops", "sys"])
def test_a_package_that_hides_another_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' has the name of a module that is installed"):
        check_packages((name,), tmp_path)


def test_the_project_itself_may_be_importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tree_of(FILES), tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "p"), *sys.path])
    check_packages(("signals",), tmp_path / "p")
    with pytest.raises(ConfigError, match=f"installed already in {tmp_path}"):
        check_packages(("signals",), tmp_path / "other")
    assert os.listdir(tmp_path) == ["p"]


def test_what_is_no_python() -> None:
    tree = {
        "a.py": TreeFile(b"x = (\n"),
        "b.py": TreeFile(b"x\0"),
        "c.py": TreeFile(b"x = 1\n"),
        "d.txt": TreeFile(b"("),
    }
    assert [(path, line) for path, line, _ in syntax_errors(tree)] == [("a.py", 1), ("b.py", 1)]
