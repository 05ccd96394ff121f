"""``load_dags(folder)``: every pipeline file in a folder, as DAGs."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, TaskGroup, get_parsing_context

from airflow_mlops.config.loader import load_pipeline
from airflow_mlops.config.models import PipelineConfig, midnight
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.factory.assets import PipelineAssets, schedule
from airflow_mlops.factory.invalid import invalid_dag
from airflow_mlops.factory.levels import DagSpec, dag_specs
from airflow_mlops.factory.steps import STEPS, StepContext
from airflow_mlops.window import parse_duration

log = logging.getLogger(__name__)

Customise = Callable[[DAG, PipelineConfig], None]

_DURATIONS = ("retry_delay", "max_retry_delay", "execution_timeout")

_FORM: dict[str, dict[str, Any]] = {
    "window_start": {
        "default": None, "type": ["null", "string"], "format": "date-time", "title": "Window start",
        "description": "First moment of the data window; empty: the run's own interval, or all the data.",
    },
    "window_end": {
        "default": None, "type": ["null", "string"], "format": "date-time", "title": "Window end",
        "description": "End of the data window, not part of it.",
    },
    "source": {
        "default": None, "type": ["null", "string"], "title": "Source",
        "description": "Read this path (below the data root) or s3:// URI instead of the pipeline's.",
    },
    "output": {
        "default": None, "type": ["null", "string"], "title": "Output",
        "description": "Write the predictions to this folder (below the data root) or s3:// URI instead.",
    },
    "params": {
        "default": None, "type": ["null", "object"], "title": "Estimator parameters",
        "description": "Set for this run, over those of the file.",
    },
    "seed": {
        "default": None, "type": ["null", "integer"], "minimum": 0, "title": "Seed",
        "description": "Another seed for split, search and estimator.",
    },
    "promote": {
        "default": True, "type": "boolean", "title": "Promote",
        "description": "Off: nothing is promoted, nobody is notified, no retrain budget is spent.",
    },
    "reason": {
        "default": None, "type": ["null", "string"], "title": "Reason",
        "description": "Why this training is started; kept in the ledger.",
    },
    "replay": {
        "default": None, "type": ["null", "string"], "title": "Replay",
        "description": "Set by `airflow mlops backfill`.",
    },
}  # fmt: skip


def load_dags(folder: str | Path = "pipelines", *, customise: Customise | None = None) -> dict[str, DAG]:
    """Build the DAGs of every ``*.yaml`` and ``*.yml`` file in ``folder``.

    A file that cannot be used becomes one DAG ``<name>__invalid`` whose page is the error; the
    others are not touched by it. When Airflow parses for one task's start, only that task's
    pipeline is built.

    :param folder: a relative path starts at the file that makes the call.
    :param customise: called with each DAG and its configuration, to add tasks of one's own.
    :returns: ``{dag_id: DAG}``, to be put into the module's globals.
    """
    path = Path(folder)
    if not path.is_absolute():
        caller = inspect.stack()[1].filename
        path = Path(caller).resolve().parent / path
    if not path.is_dir():
        raise ConfigError(f"{path} is not a folder", hint="load_dags() takes the folder that holds the pipeline files")
    return dict(_build(_files(path), get_parsing_context().dag_id, customise))


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml") and not p.name.startswith("."))


def _build(files: list[Path], only: str | None, customise: Customise | None) -> Iterator[tuple[str, DAG]]:
    seen: dict[str, Path] = {}
    for file in _candidates(files, only):
        try:
            config = load_pipeline(file)
            if config.pipeline in seen:
                raise ConfigError(
                    f"{file}: pipeline {config.pipeline!r} is also defined in {seen[config.pipeline].name}",
                    hint="give one of them another name",
                )
            seen[config.pipeline] = file
            dags = build_pipeline(config, source=file)
            if customise is not None:
                for dag in dags.values():
                    customise(dag, config)
        except ConfigError as e:
            dags = invalid_dag(file, str(e))
        except Exception as e:
            log.exception("%s cannot be built", file)
            dags = invalid_dag(file, f"{file}: Airflow refuses this pipeline: {type(e).__name__}: {e}")
        yield from dags.items()


def _candidates(files: list[Path], only: str | None) -> list[Path]:
    """The files that may define the DAG ``only``; all of them when Airflow asks for all.

    A task's start needs one pipeline of a thousand, so files are sifted by their text, not parsed.
    """
    if only is None or "__" not in only:
        return files
    name = re.escape(only.rpartition("__")[0])
    pattern = re.compile(rf"^\s*[\"']?pipeline[\"']?\s*:\s*[\"']?{name}[\"']?\s*(#.*)?$".encode(), re.MULTILINE)

    def names_it(file: Path) -> bool:
        try:
            return bool(pattern.search(file.read_bytes()))
        except OSError:  # a folder, a broken link: no pipeline is in there, and the others go on
            return False

    return [f for f in files if f.stem == only.rpartition("__")[0] or names_it(f)] or files


def build_pipeline(config: PipelineConfig, *, source: Path | None = None) -> dict[str, DAG]:
    """Build the DAGs of one pipeline: ``{dag_id: DAG}``."""
    assets = PipelineAssets(config)
    return {f"{config.pipeline}__{spec.suffix}": _dag(config, spec, assets, source) for spec in dag_specs(config)}


def _dag(config: PipelineConfig, spec: DagSpec, assets: PipelineAssets, source: Path | None) -> DAG:
    settings = config.dag
    default_args: dict[str, Any] = {
        "owner": config.owner,
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        # On the tasks, not on the DAG: only a task's callback is told the exception.
        "on_failure_callback": _on_failure(config),
        **settings.default_args.model_dump(exclude_none=True),
    }
    for key in _DURATIONS:
        value = default_args.get(key)
        if isinstance(value, str):
            default_args[key] = parse_duration(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            default_args[key] = timedelta(seconds=value)
    with DAG(
        dag_id=f"{config.pipeline}__{spec.suffix}",
        description=spec.summary,
        doc_md=_dag_doc(config, spec, source),
        schedule=schedule(config, spec.suffix, assets),
        start_date=midnight(settings.start_date, settings.timezone),
        end_date=midnight(settings.end_date, settings.timezone) if settings.end_date else None,
        catchup=settings.catchup,
        max_active_runs=settings.max_active_runs,
        max_active_tasks=settings.max_active_tasks,
        access_control=settings.access_control,
        default_args=default_args,
        params={name: Param(**_FORM[name]) for name in spec.form},
        tags={"mlops", f"level-{config.level}", config.owner, *settings.tags},
        # XComs are dicts: `{{ }}` around one argument must stay one.
        render_template_as_native_obj=False,
    ) as dag:
        _tasks(config, spec, StepContext(config, assets, source))
    return dag


def _tasks(config: PipelineConfig, spec: DagSpec, context: StepContext) -> None:
    groups: dict[str, TaskGroup] = {}
    for step in spec.steps_for(config):
        group, task_id = step.name.split(".")
        if group not in groups:
            groups[group] = TaskGroup(group_id=group)
        make, summary = STEPS[step.name]
        with groups[group]:
            task = make(context, task_id)
        task.doc_md = summary
        context.tasks[step.name] = task
        for name in step.after:
            context.tasks[name] >> task


def _on_failure(config: PipelineConfig) -> Any:
    if not config.notify.notifiers:
        return None
    from airflow_mlops.notifications.dispatch import failure_callback

    return failure_callback(list(config.notify.events), [n.model_dump(by_alias=True) for n in config.notify.notifiers])


def _dag_doc(config: PipelineConfig, spec: DagSpec, source: Path | None) -> str:
    lines = [f"**{spec.summary}**", ""]
    if config.description:
        lines += [config.description, ""]
    lines += [f"Pipeline `{config.pipeline}`, level {config.level}, owner {config.owner}.", ""]
    lines += [f"- `{step.name}`: {STEPS[step.name][1]}" for step in spec.steps_for(config)]
    if source is not None:
        fence = "~~~"
        lines += ["", f"Made from `{source.name}`:", "", f"{fence}yaml", source.read_text("utf-8").rstrip(), fence]
    return "\n".join(lines)
