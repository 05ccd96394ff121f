from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from airflow_mlops.registry.lineage import code_version, config_hash


def test_config_hash_ignores_the_order_of_keys() -> None:
    assert config_hash({"a": 1, "b": {"c": [1, 2], "d": None}}) == config_hash({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert config_hash({"a": [1, 2]}) != config_hash({"a": [2, 1]})
    with pytest.raises(ValueError, match="JSON"):
        config_hash({"a": float("inf")})


def test_code_version_outside_git(tmp_path: Path) -> None:
    source = tmp_path / "train.py"
    source.write_text("x = 1\n")
    found = code_version([source, tmp_path / "gone.py"])
    assert found["git"] == "unknown"
    assert found["files"] == {
        str(source): hashlib.sha256(b"x = 1\n").hexdigest(),
        str(tmp_path / "gone.py"): "unknown",
    }
    assert found["airflow-mlops"]
    assert code_version()["git"] == "unknown"


def test_code_version_in_git(tmp_path: Path) -> None:
    def git(*args: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *args], check=True, capture_output=True, text=True
        ).stdout.strip()

    source = tmp_path / "train.py"
    source.write_text("x = 1\n")
    git("init", "-q")
    assert code_version([source])["git"] == "unknown"  # no commit yet
    git("add", ".")
    git("commit", "-qm", "first")
    git("tag", "-m", "a tag", "v1")
    sha = git("rev-parse", "HEAD")
    assert code_version([source])["git"] == sha
    assert code_version(folder=tmp_path)["git"] == sha
    source.write_text("x = 2\n")
    assert code_version([source])["git"] == f"{sha}-dirty"


def test_code_version_without_git_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_version(folder=tmp_path)["git"] == "unknown"
