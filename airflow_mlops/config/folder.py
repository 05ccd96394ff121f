"""Which files of a folder are pipelines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from airflow_mlops.config.layers import SUFFIXES


def pipeline_files(folder: Path, shard: tuple[int, int] | None = None) -> list[Path]:
    """The YAML files in ``folder`` and below, in the order of their paths; hidden ones are left out.

    :param shard: ``(i, n)``: only the files of the i-th of n shards, counted from 0; a file's shard
        follows from its path below ``folder`` and never changes while n stays.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(place, f) for f in files if f.endswith(SUFFIXES) and not f.startswith(".")]
    if shard is not None:
        index, count = shard
        found = [f for f in found if crc32(os.path.relpath(f, folder).replace(os.sep, "/").encode()) % count == index]
    return [Path(f) for f in sorted(found)]


def root_of(path: Path) -> Path:
    """The folder that nothing a file extends may lie outside of, where a person names ``path``.

    A folder is its own; for a file it is the current folder, if the file lies below that, else the file's.
    """
    if path.is_dir():
        return path
    here = Path.cwd()
    return here if path.resolve().is_relative_to(here.resolve()) else path.parent


def naming(name: str, files: Iterable[Path]) -> list[Path]:
    """Those of ``files`` whose text names the pipeline ``name``; they are searched, not parsed."""
    key = rb"[\"']?pipeline[\"']?\s*:\s*"
    pattern = re.compile(
        rb"(?:^|[{,])\s*" + key + rb"[\"']?" + re.escape(name.encode()) + rb"[\"']?\s*(?:#|,|\}|\r?$)", re.MULTILINE
    )
    return [f for f in files if pattern.search(_bytes(f))]


def is_extended(path: Path, files: Iterable[Path]) -> bool:
    """Whether one of ``files`` seems to extend ``path``: it has the key, and the file's name after it."""
    pattern = re.compile(rb"(?:^|[{,])\s*[\"']?extends[\"']?\s*:[^:]*" + re.escape(path.name.encode()), re.MULTILINE)
    return any(pattern.search(_bytes(f)) for f in files if f != path)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # a folder, a broken link, no rights: whoever reads it as a pipeline says so
        return b""
