"""A pipeline file, run here: the steps of its training DAG without Airflow, from data to verdict."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow_mlops.config.folder import root_of
from airflow_mlops.config.loader import load_pipeline
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.settings import Settings
from airflow_mlops.exceptions import ConfigError, RegistryError, WindowError
from airflow_mlops.local_result import Experimented, FleetResult, Result, StepResult
from airflow_mlops.window import Window

if TYPE_CHECKING:
    from airflow_mlops.local_run import LocalRun
    from airflow_mlops.ml.expectations_sql import Database
    from airflow_mlops.ml.files import Files
    from airflow_mlops.ml.reading import Sql
    from airflow_mlops.registry.signing import Signer, Verifier
    from airflow_mlops.store.base import Store

Say = Callable[[str], None]

WIDTH = 80
_NAME, _TIME = 23, 9


class Pipeline:
    """One pipeline, to be run without scheduler and database: in a notebook, a test, a terminal.

    :param config: the checked pipeline.
    :param folder: the folder of its file, in which ``train.command`` runs.
    :param allowed_imports: import prefixes from which the pipeline may name code, as ``[mlops] allowed_imports``.
    :param data_root: folder or URI that relative data paths start from; default: the current folder.
    """

    def __init__(
        self,
        config: PipelineConfig,
        *,
        folder: Path | None = None,
        allowed_imports: Sequence[str] = (),
        data_root: str | os.PathLike[str] | None = None,
    ) -> None:
        self.config = config
        self._folder = folder
        self._allowed_imports = tuple(allowed_imports)
        self._data_root = data_root

    @classmethod
    def from_yaml(
        cls,
        path: str | os.PathLike[str],
        *,
        environment: str | None = None,
        allowed_imports: Sequence[str] = (),
        data_root: str | os.PathLike[str] | None = None,
    ) -> Pipeline:
        """Read a pipeline file; nothing of it is run or imported.

        :param environment: the overlay of ``environments`` to put on top.
        :raises InvalidPipeline: with every problem of the file and its place.
        """
        settings = Settings(environment=environment, allowed_imports=tuple(allowed_imports))
        config = load_pipeline(Path(path), settings, root_of(Path(path)))
        folder = Path(path).resolve().parent
        return cls(config, folder=folder, allowed_imports=allowed_imports, data_root=data_root)

    def __repr__(self) -> str:
        return f"<Pipeline {self.config.pipeline}, level {self.config.level}>"

    def run(
        self,
        *,
        sample: int | None = None,
        start: str | date | None = None,
        end: str | date | None = None,
        store: Store | str | None = None,
        register: bool = False,
        say: Say = print,
        data_root: str | os.PathLike[str] | None = None,
        sql: Sql | None = None,
        database: Database | None = None,
        trusted_types: Sequence[str] = (),
        allow_commands: bool = False,
        reports: str | os.PathLike[str] | None = None,
        files: Files | None = None,
        signer: Signer | None = None,
        verifier: Verifier | None = None,
    ) -> Result:
        """Run the steps of the training DAG here, one after the other.

        Nothing is promoted, and nothing outlasts the result, unless ``register`` is set.

        :param sample: work on at most this many rows, drawn evenly by ``train.seed``.
        :param start: of the data window, in ``dag.timezone`` where it names no other; default: all the data.
        :param end: of it, not part of it.
        :param store: URI or store whose champion the candidate is compared with, and whose schema lock counts.
            It is only read, unless ``register`` is set.
        :param register: register the candidate as a version in ``store``, with its evaluation and verdict.
        :param say: takes what is printed, line by line.
        :param data_root: instead of the pipeline's.
        :param sql: ``(conn_id, query)`` → Arrow tables, for ``data.sql``.
        :param database: ``conn_id`` → SQLAlchemy engine, for ``validate.engine: sql``.
        :param trusted_types: types beyond the built-in ones that a model may hold.
        :param allow_commands: whether ``train.command`` may run.
        :param reports: folder to which each report is written as soon as it is made.
        :param files: opens the data, instead of ``data_root`` and AWS's own credentials.
        :param signer: signs what is registered.
        :param verifier: whose signatures count where a model of ``store`` is loaded.
        :raises MLOpsError: as the steps of the DAG do; a note on the error names the step.
        """
        if not self.config.has_model:
            raise ConfigError(
                f"{self.config.pipeline} trains no model: it is an experiment on {self._function}",
                hint="run it with `airflow mlops experiment FILE`, or Pipeline.experiment()",
            )
        if self.config.fleet is not None:
            raise ConfigError(
                f"{self.config.pipeline} is a fleet: it has a model for each key, and no one result",
                hint="use Pipeline.run_fleet() or, on the command line, `airflow mlops run`",
            )
        with ExitStack() as stack:
            run, made = self._local(
                "train", stack, say, sample=sample, start=start, end=end, store=store, register=register,
                data_root=data_root, sql=sql, database=database, trusted_types=trusted_types,
                allow_commands=allow_commands, reports=reports, files=files, signer=signer, verifier=verifier,
            )  # fmt: skip
            steps = tuple(_walk(run, say))
            return _result(run, made, steps, say, stack.pop_all().close)

    def run_fleet(
        self,
        *,
        keys: Collection[str] | None = None,
        sample: int | None = None,
        start: str | date | None = None,
        end: str | date | None = None,
        store: Store | str | None = None,
        register: bool = False,
        say: Say = print,
        data_root: str | os.PathLike[str] | None = None,
        sql: Sql | None = None,
        database: Database | None = None,
        trusted_types: Sequence[str] = (),
        reports: str | os.PathLike[str] | None = None,
        files: Files | None = None,
        signer: Signer | None = None,
        verifier: Verifier | None = None,
    ) -> FleetResult:
        """Run the steps of a fleet's training DAG here, one shard after the other.

        :param keys: to train, parents (``*``) included; default: all.
        :param sample: work on at most this many rows: those of some keys, chosen by ``train.seed``; ``keys`` first.
        :param register: register the versions in ``store``, with their verdicts.

        The other parameters are those of :meth:`run`.

        :raises ConfigError: the pipeline is no fleet.
        :raises MLOpsError: as the steps of the DAG do; a note on the error names the step. A key that fails is a row of
            the result.
        """
        if self.config.fleet is None:
            raise ConfigError(
                f"{self.config.pipeline} is no fleet: it has one model, without a key", hint="use Pipeline.run()"
            )
        with ExitStack() as stack:
            run, made = self._local(
                "train", stack, say, sample=sample, start=start, end=end, store=store, register=register,
                data_root=data_root, sql=sql, database=database, trusted_types=trusted_types, reports=reports,
                files=files, signer=signer, verifier=verifier,
            )  # fmt: skip
            run.keys = frozenset(keys) if keys is not None else None
            steps = tuple(_walk(run, say))
            return _fleet_result(run, made, steps, say, stack.pop_all().close)

    def experiment(
        self,
        *,
        n_trials: int | None = None,
        strategy: str | None = None,
        space: Mapping[str, Sequence[Any]] | None = None,
        sample: int | None = None,
        start: str | date | None = None,
        end: str | date | None = None,
        store: Store | str | None = None,
        register: bool = False,
        say: Say = print,
        data_root: str | os.PathLike[str] | None = None,
        sql: Sql | None = None,
        database: Database | None = None,
        trusted_types: Sequence[str] = (),
        reports: str | os.PathLike[str] | None = None,
        files: Files | None = None,
        signer: Signer | None = None,
        verifier: Verifier | None = None,
    ) -> Experimented:
        """Run the steps of the experiment's DAG here, one trial after the other; then the gates judge the winner.

        :param n_trials: instead of the file's. :param strategy: likewise.
        :param space: parameter → values, instead of those of the file's spaces.
        :param register: record the trials in ``store``, and register the winner. Started again, the same experiment on
            the same rows goes on where it stopped.

        The other parameters are those of :meth:`run`.

        :raises ConfigError: there is no ``experiment`` section, or what is set does not fit it.
        :raises MLOpsError: as the steps of the DAG do; a note on the error names the step.
        """
        from airflow_mlops.ml.experiment_plan import overridden

        if self.config.experiment is None:
            raise ConfigError(
                f"{self.config.pipeline} has no `experiment` section", hint="add one, with a `space` or `candidates`"
            )
        asked = overridden(self.config.experiment, space or {}, n_trials=n_trials, strategy=strategy)
        other = Pipeline(
            self.config.model_copy(update={"experiment": asked}),
            folder=self._folder,
            allowed_imports=self._allowed_imports,
            data_root=self._data_root,
        )
        with ExitStack() as stack:
            run, made = other._local(
                "experiment", stack, say, sample=sample, start=start, end=end, store=store, register=register,
                data_root=data_root, sql=sql, database=database, trusted_types=trusted_types, reports=reports,
                files=files, signer=signer, verifier=verifier,
            )  # fmt: skip
            steps = tuple(_walk(run, say))
            if not self.config.has_model:
                say("nothing was trained: this experiment has no model")
            result = _result(run, made, steps, say, lambda: None) if self.config.has_model else None
            return Experimented(
                pipeline=self.config.pipeline,
                winner=run.result["winner"],
                sentence=run.result["sentence"],
                trials=tuple(run.table),
                result=result,
                reports=made,
                steps=steps,
                store=run.store,
                _cleanup=stack.pop_all().close,
            )

    @property
    def _function(self) -> str:
        return str(self.config.experiment.callable) if self.config.experiment else "nothing"

    def _local(
        self,
        dag: str,
        stack: ExitStack,
        say: Say,
        *,
        sample: int | None,
        start: str | date | None,
        end: str | date | None,
        store: Store | str | None,
        register: bool,
        data_root: str | os.PathLike[str] | None,
        sql: Sql | None,
        database: Database | None,
        trusted_types: Sequence[str],
        reports: str | os.PathLike[str] | None,
        files: Files | None,
        signer: Signer | None,
        verifier: Verifier | None,
        allow_commands: bool = False,
    ) -> tuple[LocalRun, dict[str, str]]:
        """What the steps of a DAG work with here, and where its reports are put."""
        from airflow_mlops.local_run import LocalRun
        from airflow_mlops.ml.files import Files as OpenFiles

        if sample is not None and sample < 1:
            raise ConfigError(f"a sample of {sample} rows is none", hint="ask for at least one row")
        if register and store is None:
            raise RegistryError("there is no store to register in", hint="name it: store='file:///folder'")
        made: dict[str, str] = {}
        run = LocalRun(
            self.config,
            self._folder,
            _store(store, register, stack),
            files or OpenFiles(root=str(data_root or self._data_root or Path.cwd())),
            run_id=f"local__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}__{uuid.uuid4().hex[:8]}",
            keep=_keeper(made, Path(reports) if reports is not None else None),
            window=window_of(start, end, self.config.dag.timezone),
            sample=sample,
            sql=sql,
            database=database,
            register=register,
            allowed_imports=self._allowed_imports,
            trusted_types=tuple(trusted_types),
            allow_commands=allow_commands,
            dag=dag,
            progress=lambda line: say(f"  {line}"),
            signer=signer,
            verifier=verifier,
        )
        return run, made


def _result(
    run: LocalRun, made: dict[str, str], steps: tuple[StepResult, ...], say: Say, cleanup: Callable[[], None]
) -> Result:
    number = run.candidate.number if run.register else None
    told = f"registered as v{number}, not promoted" if number else "nothing was registered"
    say(f"verdict: {run.decision['verdict']}; {told}")
    return Result(
        pipeline=run.config.pipeline,
        verdict=run.decision["verdict"],
        sentence=run.decision["sentence"],
        metrics=run.evaluation["metrics"],
        gates=tuple(run.decision["results"]),
        model=run.model,
        snapshot=run.snapshot,
        reports=made,
        version=number,
        steps=steps,
        store=run.store,
        _cleanup=cleanup,
    )


def _fleet_result(
    run: LocalRun, made: dict[str, str], steps: tuple[StepResult, ...], say: Say, cleanup: Callable[[], None]
) -> FleetResult:
    rows = run.fleet["rows"]
    versions = sum("version" in row for row in rows)
    told = f"{versions:,} versions registered, none promoted" if run.register else "nothing was registered"
    say(f"verdict: {run.decision['sentence']}; {told}")
    return FleetResult(
        pipeline=run.config.pipeline,
        verdict=run.decision["verdict"],
        sentence=run.decision["sentence"],
        counts=run.fleet["counts"],
        rows=tuple(sorted(rows, key=lambda row: row["key"])),
        snapshot=run.snapshot,
        reports=made,
        registered=run.register,
        plan=run.fleet["plan"].digest,
        costs=tuple(run.costs),
        steps=steps,
        store=run.store,
        _cleanup=cleanup,
    )


def _walk(run: LocalRun, say: Say) -> Iterator[StepResult]:
    """Run the steps of the DAG in their order and tell of each when it has ended."""
    from airflow_mlops import local_fleet
    from airflow_mlops.factory.levels import dag_specs
    from airflow_mlops.local_steps import STEPS
    from airflow_mlops.ml.cost import Meter

    (spec,) = (spec for spec in dag_specs(run.config) if spec.suffix == run.dag)
    does = STEPS | local_fleet.STEPS if run.config.fleet is not None else STEPS
    say(f"{run.config.pipeline} (level {run.config.level}): the steps of {run.config.pipeline}__{run.dag}, run here")
    for step in spec.steps_for(run.config):
        began, run.meter = time.monotonic(), Meter()
        try:
            told = does[step.name](run)
        except Exception as e:  # raised again: here it is only told where
            hint = f"; a sample of at most {run.sample:,} rows may be too few" if run.sample else ""
            for line in layout(step.name, [f"failed{hint}"], time.monotonic() - began):
                say(line)
            e.add_note(f"in the step {step.name} of {run.config.pipeline}")
            raise
        seconds = time.monotonic() - began
        run.costs.append({"task": step.name, **run.meter.read()})
        for line in layout(step.name, told, seconds):
            say(line)
        yield StepResult(step.name, tuple(told), seconds)


def layout(name: str, told: Sequence[str], seconds: float) -> list[str]:
    """Lines of at most 80 characters: the step, what it told, and its time if that can be seen."""
    timed = f"{seconds:.1f} s" if seconds >= 0.05 else ""
    lines: list[str] = []
    for text in told:
        # The time stands behind the first line.
        width = WIDTH - _NAME - (0 if lines else _TIME)
        lines += textwrap.wrap(text, width, break_on_hyphens=False) or [""]
    first = f"{name:<{_NAME}}{lines[0]:<{WIDTH - _NAME - _TIME}}{timed:>{_TIME}}".rstrip()
    return [first, *(" " * _NAME + line for line in lines[1:])]


def _store(store: Store | str | None, register: bool, stack: ExitStack) -> Store:
    """What the run writes to: ``store`` itself to register, else a temporary one on top of it."""
    from airflow_mlops.store import LocalStore, open_store
    from airflow_mlops.store.overlay import OverlayStore

    given = open_store(store) if isinstance(store, str) else store
    if given is not None and register:
        return given
    folder = tempfile.mkdtemp(prefix="mlops-run-")
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    scratch = LocalStore(folder)
    return scratch if given is None else OverlayStore(scratch, given)


def _keeper(made: dict[str, str], folder: Path | None) -> Callable[[str, str], None]:
    def keep(title: str, page: str) -> None:
        made[title] = page
        if folder is not None:
            name = re.sub(r"\W+", "-", title.lower())
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{name}.html").write_text(page, encoding="utf-8")
            except OSError as e:
                raise ConfigError(f"{folder}: the report cannot be written: {e}", hint="name another folder") from e

    return keep


def window_of(start: str | date | None, end: str | date | None, zone: str) -> Window | None:
    """The window; a time without an offset is one in ``zone``.

    :raises WindowError: only one end is given, or one is no time.
    """
    if start is None and end is None:
        return None
    if start is None or end is None:
        raise WindowError("only one end of the window is given", hint="give both: --from and --to, start and end")
    return Window.of(_moment(start, zone), _moment(end, zone))


def _moment(value: str | date, zone: str) -> datetime:
    text = value if isinstance(value, str) else value.isoformat()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as e:
        raise WindowError(f"{text!r} is not a date or time", hint="write it as 2013-01-31") from e
    return moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))
