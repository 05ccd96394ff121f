"""Loader files that share a large folder of pipelines, each with a shard of its files."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass
from pathlib import Path

from airflow_mlops.config.folder import pipeline_files
from airflow_mlops.config.writing import write_whole
from airflow_mlops.exceptions import ConfigError

# Airflow gives a loader 30 s to be read and, while another one's DAGs are written to its database, 50 s
# to be heard. 170 files are some 500 DAGs: they are read in about 2 s, and written at tens of DAGs a second.
FILES_PER_LOADER = 170
_NAME = re.compile(r"loader_\d{3,}\.py")
_LOADER = """\
{mark}
# Repeat that instead of changing this file. Airflow reads only files that hold
# the words "airflow" and "dag".
from airflow_mlops import load_dags

globals().update(load_dags({folder}, shard=({index}, {count})))
"""


@dataclass(frozen=True)
class LoaderPlan:
    """What is to be done so that the loaders in ``out`` share the files of ``folder``.

    :param files: how many pipeline files there are.
    :param count: how many loaders share them.
    :param write: loaders that are missing or differ, with their text.
    :param remove: loaders of an earlier, larger count.
    :param doubled: ``(file, line)`` of calls elsewhere in ``out`` that load files of ``folder`` too.
    """

    folder: Path
    out: Path
    files: int
    count: int
    write: dict[Path, str]
    remove: tuple[Path, ...]
    doubled: tuple[tuple[Path, int], ...]

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.write or self.remove)


def plan_loaders(folder: Path, *, count: int | None = None, out: Path | None = None) -> LoaderPlan:
    """Compare the loaders that ``folder`` needs with those that are there; changes nothing.

    :param count: how many; default: one for each :data:`FILES_PER_LOADER` files.
    :param out: where they lie; default: beside the folder.
    :raises ConfigError: there is nothing to load, or a file that the command has not written for this
        folder has the name of a loader.
    """
    folder = Path(os.path.abspath(folder))
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", hint="name the folder that holds the pipeline files")
    out = Path(os.path.abspath(out)) if out else folder.parent
    if not out.is_dir():
        raise ConfigError(f"{out} is not a folder", hint="make it first, below Airflow's dags folder")
    files = len(pipeline_files(folder))
    if not files:
        raise ConfigError(f"{folder} holds no pipeline file", hint="pipeline files end with .yaml or .yml")
    if count is None:
        count = -(-files // FILES_PER_LOADER)
    if count < 1:
        raise ConfigError(f"{count} loaders cannot share a folder", hint="--count takes 1 or more")
    # As load_dags() finds it: from the place where the loader really lies.
    name = Path(os.path.relpath(folder.parent.resolve() / folder.name, out.resolve())).as_posix()
    mark = f"# Written by `airflow mlops loaders` for the folder {name!r}."
    wanted = {
        out / f"loader_{index:03d}.py": _LOADER.format(mark=mark, folder=repr(name), index=index, count=count)
        for index in range(count)
    }
    there = {path: _text(path) for path in sorted(out.glob("*.py"))}
    own = {path for path, text in there.items() if _NAME.fullmatch(path.name) and text.startswith(mark + "\n")}
    if foreign := [path.name for path in wanted if path in there and path not in own]:
        raise ConfigError(
            f"{', '.join(foreign[:3])}{' …' if len(foreign) > 3 else ''} in {out}: not written by this command for "
            f"{name!r}, and so not overwritten",
            hint="rename what is yours, or choose another place for these loaders with -o DIR",
        )
    return LoaderPlan(
        folder,
        out,
        files,
        count,
        write={path: text for path, text in wanted.items() if there.get(path) != text},
        remove=tuple(path for path in sorted(own) if path not in wanted),
        doubled=tuple(
            (path, line) for path, text in there.items() if path not in own for line in _calls(path, text, folder)
        ),
    )


def write_loaders(plan: LoaderPlan) -> None:
    """Do what ``plan`` says; each file is there whole or not at all.

    :raises ConfigError: a file cannot be written or removed.
    """
    for path, text in plan.write.items():
        write_whole(path, text.encode())
    try:
        for path in plan.remove:
            path.unlink(missing_ok=True)
    except OSError as e:
        raise ConfigError(f"{e.filename}: {e.strerror}", hint="check the owner and mode of the folder") from e


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):  # a folder, a broken link, another encoding: none of ours
        return ""


def _calls(path: Path, text: str, folder: Path) -> list[int]:
    """Lines of ``path`` that call load_dags() for ``folder``, one inside it, or one around it."""
    if "load_dags" not in text:
        return []
    try:
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError):
        return []
    folder = folder.resolve()
    found = []
    for call in calls:
        function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = [*call.args[:1], *(k.value for k in call.keywords if k.arg == "folder")]
        asked = given[0].value if given and isinstance(given[0], ast.Constant) else None if given else "pipelines"
        if function != "load_dags" or not isinstance(asked, str):
            continue
        other = (path.resolve().parent / asked).resolve()
        if other.is_relative_to(folder) or folder.is_relative_to(other):
            found.append(call.lineno)
    return sorted(found)
