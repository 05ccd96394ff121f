from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.exceptions import ConfigError
from airflow_mlops.factory import shards
from airflow_mlops.factory.loading import load_dags
from airflow_mlops.factory.shards import FILES_PER_LOADER, plan_loaders, write_loaders

SMALL = """pipeline: {}
level: 0
data: {{source: a.csv, target: y}}
train: {{estimator: sklearn.linear_model.LogisticRegression}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "dags" / "pipelines"
    found.mkdir(parents=True)
    for number in range(10):
        (found / f"p{number}.yaml").write_text(SMALL.format(f"p{number}"))
    return found


def _write(folder: Path, count: int | None = None, out: Path | None = None) -> list[str]:
    write_loaders(plan_loaders(folder, count=count, out=out))
    return sorted(path.name for path in (out or folder.parent).glob("*") if path.is_file())


def _run(loader: Path) -> set[str]:
    """The DAGs that Airflow would find in a loader."""
    scope: dict[str, object] = {"__name__": "loader", "__file__": str(loader)}
    exec(compile(loader.read_text(), loader, "exec"), scope)
    return {name for name in scope if name.endswith(("__train", "__predict", "__registry"))}


def test_the_loaders_share_all_dags_and_none_twice(folder: Path) -> None:
    assert _write(folder, 4) == [f"loader_00{i}.py" for i in range(4)]
    found = [_run(loader) for loader in sorted(folder.parent.glob("*.py"))]
    assert set.union(*found) == set(load_dags(folder))
    assert sum(len(dags) for dags in found) == 30


def test_airflow_sees_a_loader_as_a_dag_file(folder: Path) -> None:
    _write(folder, 1)
    # airflow.utils.file.might_contain_dag_via_default_heuristic
    text = (folder.parent / "loader_000.py").read_bytes().lower()
    assert b"dag" in text
    assert b"airflow" in text


def test_by_default_there_is_a_loader_for_so_many_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_loaders(folder).count == 1
    monkeypatch.setattr(shards, "FILES_PER_LOADER", 5)
    assert plan_loaders(folder).count == 2
    monkeypatch.setattr(shards, "FILES_PER_LOADER", 4)
    assert plan_loaders(folder).count == 3


def test_16000_dags_in_files_of_three_need_32_loaders() -> None:
    assert math.ceil(16000 / 3 / FILES_PER_LOADER) == 32


def test_a_second_time_there_is_nothing_to_do(folder: Path) -> None:
    _write(folder, 3)
    plan = plan_loaders(folder, count=3)
    assert not plan.changes
    before = {path: path.stat().st_mtime_ns for path in folder.parent.glob("*.py")}
    write_loaders(plan)
    assert {path: path.stat().st_mtime_ns for path in folder.parent.glob("*.py")} == before


def test_a_plan_changes_nothing(folder: Path) -> None:
    plan = plan_loaders(folder, count=3)
    assert plan.changes
    assert len(plan.write) == 3
    assert not list(folder.parent.glob("*.py"))


def test_loaders_of_a_larger_count_go(folder: Path) -> None:
    _write(folder, 5)
    assert _write(folder, 2) == ["loader_000.py", "loader_001.py"]
    assert "shard=(1, 2)" in (folder.parent / "loader_001.py").read_text()


def test_a_changed_loader_is_mended(folder: Path) -> None:
    _write(folder, 2)
    loader = folder.parent / "loader_001.py"
    text = loader.read_text()
    loader.write_text(text.replace("(1, 2)", "(0, 2)"))
    assert list(plan_loaders(folder, count=2).write) == [loader]
    _write(folder, 2)
    assert loader.read_text() == text


def test_a_file_of_somebody_else_is_not_touched(folder: Path) -> None:
    mine = folder.parent / "loader_001.py"
    mine.write_text("# mine\n")
    with pytest.raises(ConfigError, match=r"loader_001\.py .* not written by this command") as caught:
        plan_loaders(folder, count=2)
    assert "-o DIR" in str(caught.value)
    assert [path.name for path in folder.parent.glob("*.py")] == ["loader_001.py"], "nothing is written at all"
    # Past the count it is in nobody's way, and stays.
    assert _write(folder, 1) == ["loader_000.py", "loader_001.py"]
    assert mine.read_text() == "# mine\n"


def test_two_folders_do_not_take_each_others_loaders(folder: Path) -> None:
    other = folder.parent / "others"
    other.mkdir()
    (other / "q.yaml").write_text(SMALL.format("q"))
    _write(folder, 3)
    with pytest.raises(ConfigError, match="not written by this command for 'others'"):
        plan_loaders(other)
    out = folder.parent / "more"
    out.mkdir()
    assert _write(other, out=out) == ["loader_000.py"]
    assert _run(out / "loader_000.py") == {"q__train", "q__predict", "q__registry"}


def test_loaders_elsewhere_find_the_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "deep"
    out.mkdir(parents=True)
    _write(folder, 1, out)
    assert len(_run(out / "loader_000.py")) == 30


def test_a_folder_behind_a_link_is_found_by_its_own_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(folder.parent)
    (folder.parent / "alias").symlink_to(folder)
    assert "load_dags('alias'" in plan_loaders(tmp_path / "linked" / "alias").write.popitem()[1]
    _write(tmp_path / "linked" / "alias")
    assert len(_run(folder.parent / "loader_000.py")) == 30


@pytest.mark.parametrize("name", ["it's", 'a "b" {c}', "näive folder", "line\nbreak", "-n", "%s"])
def test_any_name_of_a_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "p.yaml").write_text(SMALL.format("p"))
    assert _write(folder) == ["loader_000.py"]
    assert _run(tmp_path / "loader_000.py") == {"p__train", "p__predict", "p__registry"}
    assert not plan_loaders(folder).changes


@pytest.mark.parametrize(
    "call",
    [
        'load_dags("pipelines")',
        "load_dags()",
        "airflow_mlops.load_dags('./pipelines', customise=f)",
        "load_dags(folder='pipelines')",
        "load_dags('pipelines', shard=(0, 2))",
        "load_dags('.')",
        "load_dags('pipelines/team')",
    ],
)
def test_a_call_elsewhere_that_loads_the_same_files_is_named(folder: Path, call: str) -> None:
    (folder / "team").mkdir()
    (folder.parent / "old.py").write_text(f"from airflow_mlops import load_dags\n\nglobals().update({call})\n")
    assert plan_loaders(folder).doubled == ((folder.parent / "old.py", 3),)


@pytest.mark.parametrize(
    "text",
    [
        'load_dags("other")',
        "load_dags(FOLDER)",
        "load_dags(3)",
        "def load_dags(): pass",
        "# load_dags('pipelines')",
        "load_dags('pipelines'",
        "load_dags('pipelines') \0",
        "other('pipelines')  # load_dags",
    ],
)
def test_what_loads_other_files_is_not(folder: Path, text: str) -> None:
    (folder.parent / "old.py").write_text(text)
    assert plan_loaders(folder).doubled == ()


def test_files_that_are_no_text_do_not_matter(folder: Path) -> None:
    (folder.parent / "latin.py").write_bytes(b"# \xff load_dags()")
    (folder.parent / "broken.py").symlink_to("nowhere")
    (folder.parent / "folder.py").mkdir()
    assert not plan_loaders(folder).doubled


@pytest.mark.parametrize(("count", "wrong"), [(0, "0 loaders"), (-3, "-3 loaders")])
def test_a_count_is_one_or_more(folder: Path, count: int, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        plan_loaders(folder, count=count)


def test_what_is_no_folder_or_empty_is_said(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        plan_loaders(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="out is not a folder"):
        plan_loaders(folder, out=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no pipeline file"):
        plan_loaders(tmp_path / "empty")


def test_an_error_leaves_no_half_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(part: str, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ConfigError, match=r"loader_000\.py cannot be written: Permission denied"):
        write_loaders(plan_loaders(folder))
    assert [path.name for path in folder.parent.iterdir()] == ["pipelines"]


@given(before=st.integers(1, 12), after=st.integers(1, 12))
def test_any_count_follows_any_other(tmp_path_factory: pytest.TempPathFactory, before: int, after: int) -> None:
    folder = tmp_path_factory.mktemp("dags") / "pipelines"
    folder.mkdir()
    (folder / "p.yaml").touch()
    _write(folder, before)
    assert _write(folder, after) == [f"loader_{i:03d}.py" for i in range(after)]
    assert not plan_loaders(folder, count=after).changes


def test_nothing_of_airflow_is_imported() -> None:
    code = "import json, sys, airflow_mlops.factory.shards; print(json.dumps([m for m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "airflow" not in json.loads(done.stdout.splitlines()[-1])
