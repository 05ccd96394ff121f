from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from airflow_mlops.registry.lineage import (
    changed_since,
    code_version,
    compare_code,
    compare_environment,
    config_hash,
    thread_counts,
)


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


# --- what is there now ---------------------------------------------------------------------------

NOW = {"python": "3.11.7", "platform": "Linux-6", "packages": {"numpy": "2.0", "skops": "0.16", "apache-airflow": None}}


def test_the_same_environment() -> None:
    assert compare_environment(NOW, NOW) == ("same", "", ())
    elsewhere = NOW | {"platform": "Linux-5"}
    assert compare_environment(elsewhere, NOW) == ("same", "", ("platform Linux-5 → Linux-6",))
    assert compare_environment(None, NOW) == ("unknown", "not recorded", ())


def test_every_difference_between_environments_is_listed() -> None:
    then = {"python": "3.12.1", "platform": "Linux-6", "packages": {"numpy": "1.9", "skops": "0.16", "old": "1"}}
    assert compare_environment(then, NOW) == (
        "different",
        "Python 3.12.1 → 3.11.7, numpy 1.9 → 2.0, old 1 → none",
        ("Python 3.12.1 → 3.11.7", "numpy 1.9 → 2.0", "old 1 → none"),
    )


def test_threads_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with threadpool_limits(limits=1, user_api="blas"):
        one = thread_counts()
    with threadpool_limits(limits=2, user_api="blas"):
        two = thread_counts()
    # Whether NumPy brings OpenBLAS or MKL is the machine's business.
    (blas,) = {"openblas", "mkl", "blis"} & one.keys()
    assert (one[blas], two[blas]) == (1, 2)
    assert one["CPUs"] == two["CPUs"] >= 1
    assert one["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in one
    told = compare_environment(NOW | {"threads": one}, NOW | {"threads": two})
    assert told == ("same", "", (f"threads of {blas} 1 → 2",))


def test_other_threads_are_told_and_are_no_other_environment() -> None:
    then = NOW | {"threads": {"CPUs": 8, "OMP_NUM_THREADS": "4", "openmp": 4, "mkl": 4}}
    now = NOW | {"threads": {"CPUs": 2, "MKL_NUM_THREADS": "1", "openmp": 2, "openblas": 2}}
    details = ("CPUs 8 → 2", "OMP_NUM_THREADS 4 → not set", "threads of openmp 4 → 2", "MKL_NUM_THREADS not set → 1")
    assert compare_environment(then, now) == ("same", "", details)
    # Of a version that was registered before they were counted, nothing is known.
    assert compare_environment(NOW, now) == ("same", "", ())
    older = NOW | {"python": "3.12.1", "threads": {"CPUs": 1}}
    told = ("Python 3.12.1 → 3.11.7", "CPUs 1 → 2", "MKL_NUM_THREADS not set → 1")
    assert compare_environment(older, now) == ("different", "Python 3.12.1 → 3.11.7", told)


def code(git: str = "unknown", **files: str) -> dict[str, Any]:
    return {"airflow-mlops": "1", "git": git, "files": {f"/a/{name}.py": digest for name, digest in files.items()}}


A, B = "a" * 64, "b" * 64


def test_code_without_files_of_its_own_is_the_same() -> None:
    assert compare_code(code(), code()) == ("same", "none of its own", ())
    assert compare_code({}, {}) == ("same", "none of its own", ())


def test_code_that_is_not_in_git_is_compared_file_by_file() -> None:
    answer, words, details = compare_code(code(x=A), code(x=A))
    assert (answer, words) == ("same", "")
    assert details == ("the git commit is unknown: only these files are compared, not what they import",)
    answer, words, details = compare_code(code(x=A, y=A), code(x=A, y=B))
    assert (answer, words) == ("different", "1 of 2 files differ")
    assert details[0] == f"/a/y.py has changed: sha256 {A[:12]} → {B[:12]}"
    assert compare_code(code(x=A), code())[2][0] == "/a/x.py is not there any more"
    assert compare_code(code(x="unknown"), code(x=A))[:2] == ("unknown", "not all was recorded")


def test_a_file_may_lie_in_another_folder() -> None:
    moved = {"git": "unknown", "files": {"/elsewhere/x.py": A}}
    assert compare_code(code(x=A), moved)[0] == "same"
    # Two of that name: which one it was cannot be said.
    assert compare_code(code(x=A), moved | {"files": {"/b/x.py": A, "/c/x.py": A}})[0] == "different"


def test_another_commit(tmp_path: Path) -> None:
    def git(*args: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *args], check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit() -> dict[str, Any]:
        git("add", ".")
        git("commit", "-qm", "more")
        return code_version([source])

    folder = tmp_path / "deep"
    folder.mkdir()
    source, helper = folder / "train.py", tmp_path / "helper.py"
    source.write_text("import helper\n")
    helper.write_text("x = 1\n")
    git("init", "-q")
    then = commit()
    assert compare_code(then, code_version([source])) == ("same", "", ())
    (tmp_path / "README.md").write_text("more\n")
    later = commit()
    assert later["git"] != then["git"]
    assert compare_code(then, later) == ("same", "", ())
    helper.write_text("x = 2\n")
    # Not committed yet, and already other code.
    said = f"Python files differ from commit {then['git'][:12]}: helper.py"
    assert compare_code(then, code_version([source])) == ("different", said, (said,))
    dirty = code_version([source])
    assert compare_code(then, commit())[:2] == ("different", said)
    answer, _, details = compare_code(dirty, code_version([source]))
    assert (answer, details) == (
        "same",
        (f"there were uncommitted changes on top of commit {later['git'][:12]}",),
    )
    strange = then | {"git": "f" * 40}
    assert compare_code(strange, later)[:2] == ("different", f"commit {'f' * 12} is not in this checkout")
    assert compare_code(then, later | {"git": "unknown"})[0] == "same"
    assert "no git checkout here" in compare_code(then, later | {"git": "unknown"})[2][0]


@pytest.mark.parametrize("commit", ["--output=x", "HEAD", "", "a b", "-" + "a" * 39])
def test_only_a_commit_is_given_to_git(tmp_path: Path, commit: str) -> None:
    assert changed_since(commit, tmp_path) is None
