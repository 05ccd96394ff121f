"""The columns of a pipeline's data, read from the head of its first file."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import os
import re
from pathlib import Path

from airflow_mlops.config.models import PipelineConfig

HEAD_BYTES = 256 * 1024

log = logging.getLogger(__name__)


class LocalColumns:
    """Tells the columns of data in local files below a folder; S3, databases and code are not asked.

    :param root: where relative paths start, and what no file of theirs may lie outside of.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._known: dict[str, list[str] | None] = {}

    def __call__(self, config: PipelineConfig) -> list[str] | None:
        """Names in their order; ``None``: not known."""
        source = config.data.source
        if source is None or any(mark in source for mark in ("{{", "{%", "${", "://")) or "://" in self.root:
            return None
        if source not in self._known:
            try:
                self._known[source] = self._read(source)
            except Exception as e:  # noqa: BLE001 - whatever is wrong with the data, the task that reads it says so
                log.debug("columns of %s are not known: %s", source, e)
                self._known[source] = None
        return self._known[source]

    def _read(self, source: str) -> list[str] | None:
        root = os.path.abspath(self.root)
        if os.path.isabs(source):  # what a person names outright
            root = os.path.dirname(re.split(r"[*?\[]", source)[0])
        below = os.path.normpath(os.path.join(root, source))
        if not os.path.isdir(root) or not Path(below).is_relative_to(root):
            return None
        from airflow_mlops.ml.files import Files

        first = Files(root).expand(source)[0].path
        if not Path(first).resolve().is_relative_to(Path(root).resolve()):
            return None
        names: list[str] | None = None
        if first.endswith((".parquet", ".pq")):
            names = _parquet(first)
        elif first.endswith((".csv", ".csv.gz")):
            names = _csv(first)
        return names if names and len(set(names)) == len(names) else None


def _parquet(path: str) -> list[str]:
    import pyarrow.parquet

    # pandas keeps its index in columns of such names; they are no data.
    return [name for name in pyarrow.parquet.read_schema(path).names if not name.startswith("__index_level_")]


def _csv(path: str) -> list[str] | None:
    with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as f:
        raw = f.read(HEAD_BYTES)
    if len(raw) == HEAD_BYTES:
        raw = raw[: raw.rfind(b"\n") + 1]
    rows = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
    return next((row for row in rows if row), None)
