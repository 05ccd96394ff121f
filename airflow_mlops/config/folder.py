"""Which files of a folder are pipelines."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from airflow_mlops.config.layers import SUFFIXES
from airflow_mlops.config.types import BEHAVIOUR_SUFFIXES
from airflow_mlops.config.yaml_source import MAX_BYTES

PROJECT_FILE = "project.yaml"
# Without a line end in it: a pattern that runs on over empty lines would be slow on many of them.
_BEFORE = rb"(?:^|[{,])[ \t]*[\"']?"


def pipeline_files(folder: Path, shard: tuple[int, int] | None = None) -> list[Path]:
    """The YAML files in ``folder`` and below, in the order of their paths; without hidden ones,
    ``*.behaviours.yaml``, and a ``project.yaml`` that names no pipeline.

    :param shard: ``(i, n)``: only the files of the i-th of n shards, counted from 0; a file's shard
        follows from its path below ``folder`` and never changes while n stays.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(place, f) for f in files if f.endswith(SUFFIXES) and not _other(f)]
    if shard is not None:
        found = [f for f in found if in_shard(f, folder, shard)]
    found = [f for f in found if os.path.basename(f) != PROJECT_FILE or not is_project_file(Path(f))]
    return [Path(f) for f in sorted(found)]


def _other(name: str) -> bool:
    """Whether a YAML file is hidden, or one of recorded behaviour."""
    return name.startswith(".") or name.endswith(BEHAVIOUR_SUFFIXES)


def is_project_file(path: Path) -> bool:
    """Whether a file is a project's, by its name and because it does not name a pipeline."""
    return path.name == PROJECT_FILE and not re.search(rb"^[\"']?pipeline[\"']?[ \t]*:", _bytes(path), re.MULTILINE)


def in_shard(file: str | Path, folder: Path, shard: tuple[int, int] | None) -> bool:
    """Whether a file below ``folder`` belongs to the shard ``(i, n)``."""
    if shard is None:
        return True
    index, count = shard
    # As bytes: a name need not be valid Unicode.
    return crc32(os.fsencode(os.path.relpath(file, folder).replace(os.sep, "/"))) % count == index


def root_of(path: Path) -> Path:
    """The folder that nothing a file extends may lie outside of, where a person names ``path``.

    That is the current folder, if ``path`` lies below it, else the folder itself, or that of the file.
    """
    here = Path.cwd()
    if path.resolve().is_relative_to(here.resolve()):
        return here
    return path if path.is_dir() else path.parent


def naming(name: str, files: Iterable[Path]) -> list[Path]:
    """Those of ``files`` whose text names the pipeline ``name``; they are searched, not parsed."""
    key = _BEFORE + rb"pipeline[\"']?[ \t]*:[ \t]*[\"']?"
    pattern = re.compile(key + re.escape(os.fsencode(name)) + rb"[\"']?[ \t]*(?:#|,|\}|\r?$)", re.MULTILINE)
    return [f for f in files if pattern.search(_bytes(f))]


def extended(files: Iterable[Path]) -> set[Path]:
    """Where the files lie that ``files`` seem to extend, by their text: names after the key, beside each file."""
    key = re.compile(_BEFORE + rb"extends[\"']?[ \t]*:([^:]{0,4000})", re.MULTILINE)
    name = re.compile(rb"[^\s\"'\[\],{}#]+\.ya?ml")
    found = set()
    for file in files:
        for match in key.finditer(_bytes(file)):
            found |= {Path(os.path.normpath(file.parent / os.fsdecode(n))) for n in name.findall(match[1])}
    return found


def text_of(path: Path) -> str:
    """The text of a file as far as it can be read, for searching in it."""
    return _bytes(path).decode(errors="replace")


def _bytes(path: Path) -> bytes:
    """What a file holds, as far as it can be a pipeline; what is no file, or cannot be read, holds nothing."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError:  # whoever reads it as a pipeline says what is wrong with it
        return b""
