"""Checks many pipeline files at once: each with every overlay, and what only shows across files.

Files are read as data. Nothing that they name is imported or run.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from airflow_mlops.config import blocks, pods
from airflow_mlops.config import columns as columns_of
from airflow_mlops.config.behaviours import read_behaviours, unknown_columns
from airflow_mlops.config.folder import PROJECT_FILE, extended, is_project_file, pipeline_files, root_of, text_of
from airflow_mlops.config.issues import InvalidPipeline, Issue
from airflow_mlops.config.loader import PipelineReader
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.project import check_file
from airflow_mlops.config.settings import Settings
from airflow_mlops.config.yaml_source import Place, Source

# Airflow gives a loader file 30 s ([core] dagbag_import_timeout), and reading it with all its DAGs 50 s
# ([dag_processor] dag_file_processor_timeout). A pipeline takes 5–7 ms of CPU to build and about 2 ms for each of its
# three or four DAGs to be stored: 1,250 take some 17 s, which leaves a processor that is three times slower, or shares
# its CPU, just enough. Past the limit Airflow drops every DAG of the loader.
MAX_FOR_ONE_LOADER = 1250

Columns = Callable[[PipelineConfig], Sequence[str] | None]


def lint(paths: Sequence[Path], settings: Settings, *, columns: Columns | None = None) -> list[Issue]:
    """Return all problems of ``paths``, files and folders of them, in the order of their places; none twice.

    A ``project.yaml`` among them, or at the top of a folder, is checked as what it is.

    Without an environment in ``settings`` each file is checked as it is and with each of its overlays.
    What is wrong only where no environment is chosen is a warning: some deployment may always choose one.

    :param settings: ``need_variables`` off turns a variable that is not set into a warning.
    :param columns: tells the columns of a pipeline's data, ``None`` where they are not known.
    """
    issues: list[Issue] = []
    files: dict[str, _File] = {}
    for path in paths:
        found = [path]
        if path.is_dir():
            found = pipeline_files(path)
            issues += _folder_issues(path, found)
        elif not os.path.lexists(path):
            issues.append(_at_start(path, "not_found", "there is no such file or folder", "check the path"))
            found = []
        for file in found:
            if not is_project_file(file):
                files.setdefault(os.path.abspath(file), _File(file, root_of(path)))
    for file in _project_files(paths):
        issues += check_file(file)
    return _Lint(settings, columns).run(list(files.values()), issues)


def count_files(paths: Sequence[Path]) -> int:
    """How many files :func:`lint` checks."""
    found = [file for path in paths for file in (pipeline_files(path) if path.is_dir() else [path])]
    return len({os.path.abspath(file) for file in [*found, *_project_files(paths)] if os.path.lexists(file)})


def _project_files(paths: Sequence[Path]) -> list[Path]:
    every = [path / PROJECT_FILE if path.is_dir() else path for path in paths]
    return list({os.path.abspath(f): f for f in every if os.path.lexists(f) and is_project_file(f)}.values())


@dataclass
class _File:
    """One file, and what reading it has shown; ``name`` with its place, once the file is known to have one."""

    path: Path
    root: Path
    issues: list[Issue] = field(default_factory=list)
    extends: set[Path] = field(default_factory=set)
    nameless: bool = False
    name: str | None = None
    source: Source | None = None


class _Lint:
    def __init__(self, settings: Settings, columns: Columns | None) -> None:
        self.settings = settings
        self.columns = columns
        self.readers: dict[tuple[Path, str | None], PipelineReader] = {}
        self.extending: dict[Path, list[Path]] = {}

    def run(self, files: list[_File], issues: list[Issue]) -> list[Issue]:
        for file in files:
            self.check(file)
        extended = {path for file in files for path in file.extends}
        pipelines = []
        for file in files:
            if not file.nameless:
                pipelines.append(file)
            elif file.path.resolve() in extended:
                continue  # what is wrong with it is found in those that extend it
            elif users := self.users(file):
                issues += self.of_base(file, users)
            else:
                pipelines.append(file)
        for file in pipelines:
            issues += file.issues
        issues += _duplicates(pipelines)
        # A file that others extend is resolved; where it was given too, it is called as it was given.
        given = {str(file.path.resolve()): str(file.path) for file in files}
        named = {replace(issue, file=given.get(issue.file, issue.file)) for issue in issues}
        return sorted(named, key=lambda i: (i.file, i.line, i.column, i.code, i.message, i.severity))

    def check(self, file: _File) -> None:
        """Read a file as it is and with its overlays, and note what that shows."""
        chosen = self.settings.environment
        source = self.read(file, chosen)
        names = [] if chosen is not None else list(source.environments)
        found: dict[Issue, list[str | None]] = {issue: [None] for issue in source.issues}
        inside = set[tuple[str, int, int]]()
        for name in names:
            with_overlay = self.read(file, name)
            inside |= _places(with_overlay)
            for issue in with_overlay.issues:
                found.setdefault(issue, []).append(name)
        file.issues += [_named(issue, where, len(names), inside) for issue, where in found.items()]
        data = source.data if isinstance(source.data, dict) else None
        if data is not None:
            file.source = source
            file.nameless = "pipeline" not in data
            file.name = data["pipeline"] if isinstance(data.get("pipeline"), str) else None

    def read(self, file: _File, environment: str | None) -> Source:
        """Read a file under one environment; the source has what is wrong with columns too."""
        key = (file.root, environment)
        if key not in self.readers:
            self.readers[key] = PipelineReader(replace(self.settings, environment=environment), file.root)
        config, source = self.readers[key].read(file.path)
        file.extends |= {Path(text.filename) for text in source.texts if text is not source.text}
        judged = config or source.repaired
        known = self.columns(judged) if self.columns is not None and judged is not None else None
        if judged is not None and known is not None:
            columns_of.check(source, judged, known)
        if judged is not None:
            _behaviours(source, judged, file.path.parent, known)
            blocks.check(source, judged)
            pods.check(source)
        return source

    def users(self, file: _File) -> list[Path]:
        """Files around ``file`` that extend it, whether they are checked or not."""
        if file.root not in self.extending:
            self.extending[file.root] = [path for path in pipeline_files(file.root) if extended([path])]
        own = file.path.resolve()
        return [
            path
            for path in self.extending[file.root]
            if path.resolve() != own and own in {base.resolve() for base in extended([path])}
        ]

    def of_base(self, base: _File, users: Iterable[Path]) -> list[Issue]:
        """What files that are not checked themselves show about a base that they extend."""
        issues = []
        for path in users:
            user = _File(path, base.root)
            self.check(user)
            if not user.nameless:
                issues += [i for i in user.issues if Path(i.file).resolve() == base.path.resolve()]
        return issues


def _behaviours(source: Source, config: PipelineConfig, folder: Path, known: Sequence[str] | None) -> None:
    """Note what is wrong with the files of recorded behaviour that gates name."""
    for i, gate in enumerate(config.evaluate.gates):
        path = ("evaluate", "gates", i, "behaviours")
        if gate.behaviours is None or source.resolve(path)[0] != path:
            continue
        try:
            found = read_behaviours(folder, gate.behaviours)
        except InvalidPipeline as e:
            if [issue.code for issue in e.issues] == ["not_found"]:
                message = f"there is no file `{gate.behaviours}` beside this one"
                source.add(source.place(path), "not_found", message, "check the path", ".".join(map(str, path)))
            else:
                source.issues += e.issues
            continue
        for line, name, advice in unknown_columns(found, known) if known is not None else ():
            message = f"the data has no column `{name}`"
            source.issues.append(Issue(str(folder / gate.behaviours), line, 1, "", "column", message, advice))


def _places(source: Source) -> set[tuple[str, int, int]]:
    """File, line and column, from 1, of everything that stands in the overlays."""
    found: list[Place] = []
    waiting = list(source.environments.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            found += [place for pair in source.where(value).values() for place in pair]
            waiting += value.values()
        elif isinstance(value, list):
            found += source.where(value)
            waiting += value
    return {(place.text.filename, place.line + 1, place.column + 1) for place in found}


def _named(issue: Issue, where: list[str | None], count: int, inside: set[tuple[str, int, int]]) -> Issue:
    """``issue`` with the environments that it shows in, where that is not plain."""
    if count == 0 or (where[0] is None and len(where) > 1):
        return issue
    if where[0] is None:
        return replace(issue, message=f"{issue.message} (where no environment is chosen)", severity="warning")
    if (issue.file, issue.line, issue.column) in inside:
        return issue
    names = ", ".join(name for name in where if name is not None)
    return replace(issue, message=f"{issue.message} (in environment{'s' * (len(where) > 1)} {names})")


def _duplicates(files: Iterable[_File]) -> list[Issue]:
    """Pipelines of one name; the file that is called like it has it, else the first."""
    # No other two DAG ids can be the same: what follows the last `_` of one is its DAG's kind, the rest the name.
    groups: dict[str, list[tuple[_File, Source]]] = {}
    for file in files:
        if file.name is not None and file.source is not None:
            groups.setdefault(file.name, []).append((file, file.source))
    issues = []
    for name, group in groups.items():
        owner, owned = next((pair for pair in group if pair[0].path.stem == name), group[0])
        line = owned.place(("pipeline",)).line + 1
        for file, source in group:
            if file is owner:
                continue
            before = len(source.issues)
            message = f"the pipeline `{name}` is already in {owner.path}, line {line}"
            advice = "give one of the two another name"
            source.add(source.place(("pipeline",)), "duplicate_pipeline", message, advice, "pipeline")
            issues += source.issues[before:]
    return issues


def _folder_issues(folder: Path, files: Sequence[Path]) -> list[Issue]:
    if not files:
        advice = "check the path; pipeline files end with .yaml or .yml"
        return [_at_start(folder, "empty_folder", "there is no pipeline file in this folder", advice)]
    if len(files) <= MAX_FOR_ONE_LOADER or _is_shared(folder):
        return []
    message = (
        f"{len(files)} files are too many for one loader: Airflow stops it after 30 seconds, and all their DAGs vanish"
    )
    advice = f"share them between several: airflow mlops loaders {shlex.quote(str(folder))}"
    return [_at_start(folder, "too_many_for_one_loader", message, advice)]


def _is_shared(folder: Path) -> bool:
    """Whether a loader beside ``folder``, or in a folder beside it, loads a shard of it."""
    folder = folder.resolve()
    for pattern in ("*.py", "*/*.py"):
        for file in folder.parent.glob(pattern):
            text = text_of(file)
            if "shard=(" in text and (folder.name in text or file.is_relative_to(folder)):
                return True
    return False


def _at_start(path: Path, code: str, message: str, suggestion: str) -> Issue:
    return Issue(str(path), 1, 1, "", code, message, suggestion)
