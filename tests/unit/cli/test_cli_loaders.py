from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from airflow_mlops.cli.loaders import loaders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "pipelines"
    found.mkdir()
    for number in range(3):
        (found / f"p{number}.yaml").touch()
    return found


def _args(folder: Path, **more: object) -> Namespace:
    return Namespace(**{"folder": str(folder), "count": None, "out": None, "check": False} | more)


def test_it_says_what_it_did(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaders(_args(folder, count=5))
    assert capsys.readouterr().out.splitlines() == [
        f"3 pipeline files in {folder}",
        f"5 loaders in {folder.parent}",
        "  written: loader_000.py … loader_004.py (5 files)",
    ]
    loaders(_args(folder))
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"1 loader in {folder.parent}",
        "  written: loader_000.py",
        "  removed: loader_001.py … loader_004.py (4 files)",
    ]
    loaders(_args(folder))
    assert capsys.readouterr().out.splitlines()[2:] == ["  nothing to change"]


def test_check_changes_nothing_and_ends_with_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        loaders(_args(folder, check=True))
    assert caught.value.code == 1
    assert "  would be written: loader_000.py\n" in capsys.readouterr().out
    assert not list(folder.parent.glob("*.py"))
    loaders(_args(folder))
    loaders(_args(folder, check=True))
    assert "nothing to change" in capsys.readouterr().out


def test_a_second_loader_of_the_same_files_is_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.parent / "loader.py").write_text("from airflow_mlops import load_dags\nload_dags()\n")
    loaders(_args(folder))
    error = capsys.readouterr().err
    assert error.startswith(f"warning: {folder.parent / 'loader.py'}:2 loads these files too")
    assert "delete loader.py" in error


def test_loaders_can_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    loaders(_args(folder, out=str(tmp_path / "out")))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["loader_000.py"]


def test_what_cannot_be_is_one_clear_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        loaders(_args(tmp_path / "nowhere"))
    assert caught.value.code == 1
    assert "nowhere is not a folder\n  What to do: " in capsys.readouterr().err
