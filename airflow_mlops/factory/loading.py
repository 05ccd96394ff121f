"""``load_dags(folder)``: every pipeline file in a folder, as DAGs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from airflow.sdk import DAG, get_parsing_context

from airflow_mlops.config.folder import extended, in_shard, naming, pipeline_files
from airflow_mlops.config.issues import InvalidPipeline
from airflow_mlops.config.layers import SUFFIXES
from airflow_mlops.config.loader import PipelineReader
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.factory.builder import build_pipeline
from airflow_mlops.factory.invalid import invalid_dag, invalid_id
from airflow_mlops.hooks.options import settings

log = logging.getLogger(__name__)

Customise = Callable[[DAG, PipelineConfig], None]


def load_dags(
    folder: str | Path = "pipelines", *, shard: tuple[int, int] | None = None, customise: Customise | None = None
) -> dict[str, DAG]:
    """Build the DAGs of every ``*.yaml`` and ``*.yml`` file in ``folder`` and the folders in it.

    A file that cannot be used becomes one DAG ``<pipeline>__invalid`` whose page is the error; the
    others are not touched by it. A file without ``pipeline`` that another one extends is no pipeline.
    When Airflow parses for one task's start, only that task's pipeline is built.

    :param folder: a relative path starts at the file that makes the call.
    :param shard: ``(i, n)``: only the i-th of n shards of the files, counted from 0; for folders that
        are too large for one loader. ``airflow mlops loaders`` writes such loaders.
    :param customise: called with each DAG and its configuration, to add tasks of one's own.
    :returns: ``{dag_id: DAG}``, to be put into the module's globals.
    """
    path = Path(folder)
    if not path.is_absolute():
        # Not inspect.stack(), which looks for the source of every frame: it took most of the time of a task's parse.
        caller = sys._getframe(1).f_code.co_filename
        path = Path(caller).resolve().parent / path
    if not path.is_dir():
        raise ConfigError(f"{path} is not a folder", hint="load_dags() takes the folder that holds the pipeline files")
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise ConfigError(f"there is no shard {shard[0]} of {shard[1]}", hint="shards are (0, n) to (n - 1, n)")
    return _Folder(path, shard, customise).dags(get_parsing_context().dag_id)


class _Folder:
    def __init__(self, path: Path, shard: tuple[int, int] | None, customise: Customise | None) -> None:
        self.path = path
        self.shard = shard
        self.customise = customise
        self.reader = PipelineReader(settings(), root=path)
        self.made: dict[str, DAG] = {}
        self.claimed: dict[str, tuple[Path, dict[str, DAG]]] = {}

    def dags(self, only: str | None) -> dict[str, DAG]:
        """The DAGs of the folder, or as few as have the DAG ``only`` among them."""
        for files in self.searches(only.rpartition("__")[0] if only else ""):
            self.made, self.claimed = {}, {}
            for file in files:
                self.take(file)
            if only in self.made:
                break
        return self.made

    def searches(self, name: str) -> Iterator[list[Path]]:
        """Where a pipeline may be, the least work first: a task's start needs one of a thousand.

        The file that has its name, which goes before all others; the files whose text names it; all.
        """
        if name:
            yield [f for f in self.own_files(name) if in_shard(f, self.path, self.shard) and f.is_file()]
            yield naming(name, self.files)
        yield self.files

    @cached_property
    def files(self) -> list[Path]:
        return pipeline_files(self.path, self.shard)

    @cached_property
    def bases(self) -> set[Path]:
        """What the files of the folder, of all shards, extend."""
        return {path.resolve() for path in extended(pipeline_files(self.path))}

    def own_files(self, name: str) -> list[Path]:
        """The files that go before others that define the pipeline ``name``."""
        return [self.path / f"{name}{suffix}" for suffix in SUFFIXES]

    def take(self, file: Path) -> None:
        """Make the DAGs of one file; whatever is wrong with it stays its own."""
        try:
            config, source = self.reader.read(file)
        except Exception as e:
            log.exception("%s cannot be read", file)
            self.refuse(file, f"{file}: this file cannot be read: {type(e).__name__}: {e}")
            return
        if config is not None:
            self.claim(file, config)
            return
        data = source.data if isinstance(source.data, dict) else {}
        # A file that others extend is no pipeline, and its mistakes are shown by theirs.
        if not data or "pipeline" in data or file.resolve() not in self.bases:
            self.refuse(file, str(InvalidPipeline(source.issues)), data.get("pipeline"))

    def claim(self, file: Path, config: PipelineConfig) -> None:
        """Build a pipeline, unless another file has its name with more right to it."""
        name = config.pipeline
        if name in self.claimed and file not in self.own_files(name):
            self.refuse(file, _taken(file, name, self.claimed[name][0]), name)
            return
        try:
            dags = build_pipeline(config, source=file)
            if self.customise is not None:
                for dag in dags.values():
                    self.customise(dag, config)
        except ConfigError as e:
            self.refuse(file, str(e), name)
        except Exception as e:
            log.exception("%s cannot be built", file)
            self.refuse(file, f"{file}: Airflow refuses this pipeline: {type(e).__name__}: {e}", name)
        else:
            other = self.claimed.get(name)
            for dag_id in other[1] if other else ():
                del self.made[dag_id]
            self.claimed[name] = (file, dags)
            self.made |= dags
            if other:
                self.refuse(other[0], _taken(other[0], name, file), name)

    def refuse(self, file: Path, message: str, name: object = None) -> None:
        """Show what is wrong with a file as a DAG."""
        dag_id = invalid_id(name, file, self.made)
        self.made[dag_id] = invalid_dag(dag_id, file, message)


def _taken(file: Path, name: str, other: Path) -> str:
    return f"{file}: pipeline {name!r} is also in {other}\n  What to do: give one of them another name"
