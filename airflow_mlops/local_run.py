"""What the steps of a run without Airflow share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.config.models import Data, PipelineConfig
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.window import Window

if TYPE_CHECKING:
    from airflow_mlops.ml.cost import Meter
    from airflow_mlops.ml.expectations_sql import Database
    from airflow_mlops.ml.experiment_records import ExperimentRecords
    from airflow_mlops.ml.experiment_trials import Runner
    from airflow_mlops.ml.files import Files
    from airflow_mlops.ml.reading import Sql
    from airflow_mlops.registry.registry import Version
    from airflow_mlops.registry.signing import Signer, Verifier
    from airflow_mlops.store.base import Store


@dataclass
class LocalRun:
    """What the steps of one run work with, and what they have found so far.

    :param store: what the run writes to; with ``register`` the real one.
    :param window: the window asked for; ``None``: all the data.
    :param sample: at most this many rows; ``None``: all.
    :param run_id: names the run in what is registered.
    :param keep: takes a report: its title and its page.
    :param dag: ``train`` or ``experiment``: whose steps these are.
    :param progress: takes a line as soon as something is known, before the step ends.
    :param facts: what else is recorded of the version: the experiment that it won.
    :param costs: what the steps that have ended cost; ``meter`` measures the one that runs.
    :param signer: signs the candidate.
    :param verifier: whose signatures count; where they must be there and the candidate is not registered, it is
        signed with a key of its own, which this run alone trusts.
    :param keys: of a fleet, the keys to train; ``None``: all.
    """

    config: PipelineConfig
    folder: Path | None
    store: Store
    files: Files
    run_id: str
    keep: Callable[[str, str], None]
    window: Window | None = None
    sample: int | None = None
    sql: Sql | None = None
    database: Database | None = None
    register: bool = False
    allowed_imports: Sequence[str] = ()
    trusted_types: Sequence[str] = ()
    allow_commands: bool = False
    dag: str = "train"
    progress: Callable[[str], None] = lambda line: None
    facts: dict[str, Any] = field(default_factory=dict)
    signer: Signer | None = None
    verifier: Verifier | None = None
    keys: frozenset[str] | None = None

    snapshot: dict[str, Any] = field(default_factory=dict)
    version: Version | None = None
    model: Any = None
    evaluation: dict[str, Any] = field(default_factory=dict)
    decision: dict[str, Any] = field(default_factory=dict)
    costs: list[dict[str, Any]] = field(default_factory=list)
    meter: Meter | None = None

    # Of a fleet alone: its ``plan``, the ``run``'s name, the ``rows`` of its keys, ``counts``, ``going`` ones.
    fleet: dict[str, Any] = field(default_factory=dict)

    # Of an experiment alone.
    records: ExperimentRecords | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    runner: Runner | None = None
    going: list[int] = field(default_factory=list)
    table: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> Data:
        """The ``data`` section; a sample may have fewer rows than ``min_rows``."""
        data = self.config.data
        return data.model_copy(update={"min_rows": min(data.min_rows, self.sample)}) if self.sample else data

    @property
    def dag_id(self) -> str:
        """The DAG whose steps these are: who may see it may see the reports of what was registered."""
        return f"{self.config.pipeline}__{self.dag}"

    @property
    def candidate(self) -> Version:
        """The version that ``train.fit`` made; its number is 0 where nothing is registered."""
        if self.version is None:
            raise ConfigError("the pipeline's steps are in no order that can be run: nothing has been trained yet")
        return self.version

    def settle_keys(self) -> None:
        """Make sure that the run can sign what it has to load again."""
        from airflow_mlops.registry.signing import Signer, Verifier

        verifier = self.verifier or Verifier()
        if self.register:
            verifier.check_signer(self.signer)
        elif verifier.signed_only:
            self.signer = Signer.generate()
            self.verifier = verifier.trusting(self.signer.public)

    def champion(self) -> Version | None:
        """The champion of the store, if there is one."""
        from airflow_mlops.registry.registry import Registry

        return Registry(self.store, self.config.pipeline).champion()

    def reference(self) -> Version | None:
        """The version that losses are counted from, if there is a champion."""
        from airflow_mlops.registry.registry import Registry

        return Registry(self.store, self.config.pipeline).reference()

    def annotate(self, kind: str, note: dict[str, Any], *inputs: str) -> None:
        """Attach ``note`` to the version, where it is registered; ``inputs`` tell notes of one kind apart."""
        if self.register:
            from airflow_mlops.registry.log import op_id
            from airflow_mlops.registry.registry import Registry

            operation = op_id(self.run_id, kind, *inputs)
            self.version = Registry(self.store, self.config.pipeline).annotate(
                self.candidate.number, kind, note, op_id=operation
            )
