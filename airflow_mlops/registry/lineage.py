"""What a version was made from, besides its data: configuration, code and environment; and what is there now."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from airflow_mlops.store.content import canonical_json, file_digest

UNKNOWN = "unknown"

Answer = Literal["same", "different", "unknown"]
Compared = tuple[Answer, str, tuple[str, ...]]
"""Answer, a few words, and a sentence for each difference or gap."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_COUNTED = ("CPUs", *_THREAD_VARIABLES)
_SHORT = 40  # characters of a variable that should hold a number
_DIRTY = "-dirty"
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


def config_hash(config: dict[str, Any]) -> str:
    """Return the sha256 of a configuration (plain JSON); the order of keys does not matter."""
    return hashlib.sha256(canonical_json(config)).hexdigest()


def code_version(paths: Iterable[str | Path] = (), folder: str | Path | None = None) -> dict[str, Any]:
    """Name the code of a run, as far as it can be known: what cannot is ``"unknown"``.

    :param paths: source files the run uses.
    :param folder: where to look for a git checkout; by default the folder of the first path.
    :return: ``{"airflow-mlops": version, "git": commit[-dirty], "files": {path: sha256}}``.
    """
    files = {str(p): file_digest(Path(p)) if Path(p).is_file() else UNKNOWN for p in paths}
    if folder is None and files:
        folder = Path(next(iter(files))).absolute().parent
    try:
        package = version("airflow-mlops")
    except PackageNotFoundError:
        package = UNKNOWN
    return {"airflow-mlops": package, "git": _git(Path(folder)) if folder else UNKNOWN, "files": files}


def thread_counts() -> dict[str, int | str]:
    """Return what decides in which order a model's numbers are added: CPUs and threads.

    :return: ``CPUs`` that this process may use; threads of each kind of library that is loaded by now (``openmp``,
        ``openblas``, ``mkl``, …), of several of a kind the most; and the variables that set them, where they are set.
    """
    from threadpoolctl import threadpool_info

    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, int | str] = {"CPUs": here}
    found |= {name: os.environ[name][:_SHORT] for name in _THREAD_VARIABLES if os.environ.get(name)}
    libraries = sorted((str(each["internal_api"]), int(each["num_threads"])) for each in threadpool_info())
    return found | dict(libraries)


def compare_environment(then: dict[str, Any] | None, now: dict[str, Any]) -> Compared:
    """Compare Python and package versions, as :func:`~airflow_mlops.registry.artifacts.environment` gives them.

    Another platform or other counts of threads are told, and are no other environment by themselves.
    """
    if not then:
        return "unknown", "not recorded", ()
    before, after = ({"Python": e.get("python"), **(e.get("packages") or {})} for e in (then, now))
    changes = tuple(
        f"{name} {before.get(name) or 'none'} → {after.get(name) or 'none'}"
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    )
    platform = (then.get("platform"), now.get("platform"))
    moved = [f"platform {platform[0]} → {platform[1]}"] if platform[0] != platform[1] else []
    moved += _threads(then.get("threads"), now.get("threads"))
    if changes:
        return "different", ", ".join(changes), (*changes, *moved)
    return "same", "", tuple(moved)


def _threads(then: dict[str, Any] | None, now: dict[str, Any] | None) -> Iterator[str]:
    """Counts that differ; nothing of versions that were registered without them."""
    if then is None or now is None:
        return
    for name in dict.fromkeys((*then, *now)):
        before, after = then.get(name), now.get(name)
        if name in _THREAD_VARIABLES:
            before, after = before or "not set", after or "not set"
        # A library that is loaded in one process alone has done nothing in the other.
        if before != after and before is not None and after is not None:
            yield f"{name if name in _COUNTED else f'threads of {name}'} {before} → {after}"


def compare_code(then: dict[str, Any], now: dict[str, Any]) -> Compared:
    """Compare what :func:`code_version` gave with what it gives now.

    Files are told apart by their content; where a file lies does not matter. Another commit is the same code as
    long as no Python file of the checkout differs between the two.
    """
    files: dict[str, str] = then.get("files") or {}
    if not files:
        return "same", "none of its own", ()
    changed, gaps = [], []
    for path, digest in files.items():
        present = _counterpart(path, now.get("files") or {})
        if digest == UNKNOWN:
            gaps.append(f"the content of {path} was not recorded")
        elif present == UNKNOWN:
            changed.append(f"{path} is not there any more")
        elif present != digest:
            changed.append(f"{path} has changed: sha256 {digest[:12]} → {present[:12]}")
    others = _commits(then.get("git") or UNKNOWN, now.get("git") or UNKNOWN, now.get("files") or {}, gaps)
    if changed or others:
        what = f"{len(changed)} of {len(files)} files differ" if changed else others[0]
        return "different", what, (*changed, *others, *gaps)
    if any("was not recorded" in gap for gap in gaps):
        return "unknown", "not all was recorded", tuple(gaps)
    return "same", "", tuple(gaps)


def _counterpart(path: str, files: dict[str, str]) -> str:
    """The sha256 of the same file, which may lie in another folder by now."""
    alike = [digest for other, digest in files.items() if Path(other).name == Path(path).name]
    return files.get(path) or (alike[0] if len(alike) == 1 else UNKNOWN)


def _commits(then: str, now: str, files: dict[str, str], gaps: list[str]) -> list[str]:
    """What another commit changed; adds to ``gaps`` what cannot be known."""
    commit = then.removesuffix(_DIRTY)
    if then == UNKNOWN:
        gaps.append("the git commit is unknown: only these files are compared, not what they import")
        return []
    if then.endswith(_DIRTY):
        gaps.append(f"there were uncommitted changes on top of commit {commit[:12]}")
    if now == UNKNOWN:
        gaps.append(f"commit {commit[:12]} was recorded, and there is no git checkout here to compare it with")
        return []
    if now == then and then == commit:
        return []
    differ = changed_since(commit, Path(next(iter(files))).absolute().parent)
    if differ is None:
        return [f"commit {commit[:12]} is not in this checkout"]
    if differ and not then.endswith(_DIRTY):
        more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
        return [f"Python files differ from commit {commit[:12]}: {differ[0]}{more}"]
    return []


def changed_since(commit: str, folder: Path) -> list[str] | None:
    """Python files of the checkout around ``folder`` that differ from ``commit``; None where it is not known there."""
    if not _COMMIT.fullmatch(commit):  # it comes from a record, and git would take "-…" for an option
        return None
    listed = _run_git(folder, "diff", "--name-only", commit, "--", ":/*.py")
    return None if listed is None else listed.splitlines()


def _git(folder: Path) -> str:
    # "exclude" leaves no tag to describe by, so that the answer is always the commit itself.
    return _run_git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*") or UNKNOWN


def _run_git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails or is not there."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
