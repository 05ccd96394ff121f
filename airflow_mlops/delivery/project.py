"""A project: pipelines, the code they use, and which of them a change touches.

Pipelines lie in ``pipelines/``, code in packages beside it. All of it is read as text: what a project's own
modules import is found in their source, and nothing is imported here.
"""

from __future__ import annotations

import ast
import importlib.machinery
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from airflow_mlops.config.folder import pipeline_files
from airflow_mlops.config.loader import PipelineReader
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.origins import effective
from airflow_mlops.config.settings import Settings
from airflow_mlops.config.yaml_source import Source
from airflow_mlops.delivery.tree import Tree
from airflow_mlops.exceptions import ConfigError

PIPELINES = "pipelines"
_NOT_CODE = ("tests", "dags")


@dataclass(frozen=True)
class ProjectPipeline:
    """One pipeline of a project, as it is in one environment, and what it uses.

    :param path: of its file, below the project.
    :param values: every effective value by its dotted key, as people may see it, by environment; ``None`` is none.
    :param code: path below the project → sha256, of each file of its own code, as far as imports tell.
    """

    name: str
    path: str
    config: PipelineConfig
    source: Source
    values: Mapping[str | None, Mapping[str, object]]
    resolved: Mapping[str | None, str]
    code: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """What differs between two states of one pipeline; ``before`` or ``after`` is ``None`` where there is none."""

    name: str
    before: ProjectPipeline | None
    after: ProjectPipeline | None
    config: bool
    code: tuple[str, ...]

    @property
    def what(self) -> str:
        """In words."""
        if self.before is None:
            return "new"
        if self.after is None:
            return "removed"
        words = ["configuration"] if self.config else []
        return ", ".join([*words, *self.code])


def own_packages(tree: Tree) -> tuple[str, ...]:
    """Return the packages of a project: folders at its top with an ``__init__.py``, but not those of tests and DAGs."""
    tops = {path.partition("/")[0] for path in tree if path.count("/") == 1 and path.endswith("/__init__.py")}
    return tuple(sorted(top for top in tops - set(_NOT_CODE) if top.isidentifier()))


def check_packages(packages: tuple[str, ...], folder: Path) -> None:
    """Refuse a package that hides another: allowed as the project's own, it would allow all of the other.

    :param folder: where the project lies; what is found there is the project itself.
    :raises ConfigError: a package has the name of a module that Python or the environment has already.
    """
    own = folder.resolve()
    elsewhere = [entry for entry in sys.path if not Path(entry or os.curdir).resolve().is_relative_to(own)]
    for name in packages:
        found = importlib.machinery.PathFinder.find_spec(name, elsewhere)
        if name in sys.stdlib_module_names or name in sys.builtin_module_names or found is not None:
            where = f" in {found.origin}" if found is not None and found.origin else ""
            raise ConfigError(
                f"the project's package {name!r} has the name of a module that is installed already{where}",
                hint="give the folder another name; where Airflow runs the tasks, the other one would be imported",
            )


def read_pipelines(folder: Path, tree: Tree, settings: Settings) -> dict[str, ProjectPipeline]:
    """Read the pipelines of a project that lies in ``folder``; files with errors are left out, and are lint's.

    :param settings: ``environment`` is the one that counts; every overlay is read besides.
    """
    place = folder / PIPELINES
    found: dict[str, ProjectPipeline] = {}
    readers: dict[str | None, PipelineReader] = {}

    def read(file: Path, environment: str | None) -> tuple[PipelineConfig | None, Source]:
        if environment not in readers:
            readers[environment] = PipelineReader(replace(settings, environment=environment), root=place)
        return readers[environment].read(file)

    for file in pipeline_files(place) if place.is_dir() else ():
        config, source = read(file, settings.environment)
        if config is None:
            continue
        each = {settings.environment: (config, source)}
        for name in source.environments if settings.environment is None else ():
            other, its = read(file, name)
            if other is not None:
                each[name] = (other, its)
        found.setdefault(
            config.pipeline,
            ProjectPipeline(
                name=config.pipeline,
                path=file.relative_to(folder).as_posix(),
                config=config,
                source=source,
                values={e: {s.path: s.value for s in effective(c, s_)} for e, (c, s_) in each.items()},
                resolved={e: c.model_dump_json() for e, (c, _) in each.items()},
                code=code_of(tree, config, file.parent.relative_to(folder).as_posix()),
            ),
        )
    return found


def changes(before: Mapping[str, ProjectPipeline], after: Mapping[str, ProjectPipeline]) -> list[Change]:
    """Return what differs, by name; pipelines that are equal in configuration and code are left out."""
    found = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            found.append(Change(name, old, new, config=True, code=()))
            continue
        code = tuple(sorted(p for p in {*old.code, *new.code} if old.code.get(p) != new.code.get(p)))
        config = old.resolved != new.resolved
        if config or code:
            found.append(Change(name, old, new, config, code))
    return found


# --- code ----------------------------------------------------------------------------------------


def code_of(tree: Tree, config: PipelineConfig, folder: str) -> dict[str, str]:
    """Return the files of the project that a pipeline's code consists of, with their sha256.

    These are the modules that the file names, what they import, packages' ``__init__.py``, the files beside the
    modules that are no Python (tables, say), and the files that ``train.command`` and gates name. An import that is
    made by a function at run time is not seen.

    :param folder: of the pipeline's file, below the project.
    """
    gates = config.evaluate.gates
    named = [config.data.callable, config.train.callable, config.train.estimator]
    named += [config.features.callable if config.features else None]
    named += [gate.value.callable for gate in gates if gate.value is not None]
    if config.experiment is not None:
        named += [config.experiment.callable]
        named += [path for c in config.experiment.candidates for path in (c.estimator, c.features)]
    paths = [path for path in named if path]
    packages = own_packages(tree)
    waiting = [_module(path) for path in paths if path.split(".")[0].split(":")[0] in packages]
    files: set[str] = set()
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        waiting += [module.rpartition(".")[0]] if "." in module else []
        if (file := _file(tree, module)) is not None:
            files.add(file)
            waiting += [m for m in _imports(tree, file, module) if m.partition(".")[0] in packages]
    tops = {file.partition("/")[0] for file in files}
    files |= {path for path in tree if path.partition("/")[0] in tops and not path.endswith((".py", ".pyc"))}
    beside = [*shlex.split(config.train.command or ""), *(gate.behaviours for gate in gates if gate.behaviours)]
    files |= {os.path.normpath(os.path.join(folder, name)) for name in beside} & set(tree)
    return {path: tree[path].sha256 for path in sorted(files)}


def syntax_errors(tree: Tree) -> Iterator[tuple[str, int, str]]:
    """Path, line and message of every Python file that cannot be read as Python."""
    for path, file in tree.items():
        if path.endswith(".py"):
            try:
                ast.parse(file.content)
            except SyntaxError as e:
                yield path, e.lineno or 1, e.msg
            except (ValueError, RecursionError, MemoryError) as e:  # a NUL in it, or nested too deeply
                yield path, 1, str(e)


def _module(path: str) -> str:
    return path.partition(":")[0] if ":" in path else path.rpartition(".")[0]


def _file(tree: Tree, module: str) -> str | None:
    path = module.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if file in tree), None)


def _imports(tree: Tree, file: str, module: str) -> Iterator[str]:
    """The modules that a file imports, wherever in it; a name imported from a package may be a module."""
    try:
        parsed = ast.parse(tree[file].content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # lint says so
        return
    package = module if file.endswith("/__init__.py") else module.rpartition(".")[0]
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{name.name}" for name in node.names)
