"""What one run of pipeline CI is asked for, and what it has found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from airflow_mlops.config.folder import PROJECT_FILE
from airflow_mlops.config.lint import Columns
from airflow_mlops.config.project import name_in
from airflow_mlops.config.settings import Settings
from airflow_mlops.delivery.project import Change, ProjectPipeline, own_packages
from airflow_mlops.delivery.repository import Repository
from airflow_mlops.delivery.tree import TreeFile
from airflow_mlops.registry.signing import Signer

Status = Literal["passed", "failed", "skipped"]
EXIT_CODES = {"lint": 3, "test": 4, "build": 5, "train": 6, "gates": 7, "contract": 8}
"""Stage, in the order of the stages → exit code of the command where it fails."""


def count(number: int, noun: str) -> str:
    """``1 gate``, ``2 gates``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


@dataclass(frozen=True)
class Case:
    """One thing that a stage looked at: a file, a test, a pipeline."""

    name: str
    status: Status
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Stage:
    """How a stage ended; ``told`` is a line for each thing worth telling."""

    name: str
    status: Status
    told: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Limits:
    """Seconds after which a process of the project is killed: its tests, all together; one training."""

    tests: float = 600.0
    training: float = 1800.0


@dataclass(frozen=True)
class Asked:
    """What CI is asked for.

    :param since: a commit, branch or tag; ``None``: every pipeline counts as changed, and none is compared.
    :param sample: rows that a pipeline is trained on, at most.
    :param data_root: where relative data paths start.
    :param settings: what the deployment decides; the project's own packages are allowed besides.
    :param withheld_conn_ids: connections to be kept from the project's code, such as that of the signing key.
    """

    folder: Path
    settings: Settings
    data_root: str
    since: str | None = None
    sample: int = 5000
    start: str | None = None
    end: str | None = None
    trusted_types: tuple[str, ...] = ()
    signer: Signer | None = None
    withheld_conn_ids: tuple[str, ...] = ()
    columns: Columns | None = None
    limits: Limits = Limits()


@dataclass
class Trial:
    """What was tried of one changed pipeline; each part is ``None`` until it was, or where there is none."""

    change: Change
    after: dict[str, Any] | None = None
    before: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None
    not_compared: str | None = None
    contract: dict[str, Any] | None = None

    @property
    def gates(self) -> list[dict[str, Any]]:
        """Every gate's outcome; those that compare are judged against the pipeline before, where there is one."""
        alone = [g for g in (self.after or {}).get("gates", []) if not (g["versus"] and self.comparison)]
        return alone + list(self.comparison["gates"] if self.comparison else [])


@dataclass
class Check:
    """One run of CI over one state of a project, and what it has found so far.

    :param files: of the project, as they lie there.
    :param work: a folder for copies, stores and logs.
    :param base: the commit that is compared with; ``None``: none is.
    """

    asked: Asked
    repository: Repository
    files: dict[str, TreeFile]
    uncommitted: list[str]
    work: Path
    base: str | None = None
    files_before: dict[str, TreeFile] = field(default_factory=dict)
    pipelines: dict[str, ProjectPipeline] = field(default_factory=dict)
    pipelines_before: dict[str, ProjectPipeline] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    bundle: bytes | None = None
    digest: str | None = None
    content: str | None = None
    signed_by: str | None = None
    stages: list[Stage] = field(default_factory=list)

    @property
    def project(self) -> str:
        """Its name: what project.yaml says, else that of its folder."""
        file = self.files.get(PROJECT_FILE)
        named = name_in(file.content.decode(errors="replace")) if file is not None else None
        return named or self.asked.folder.resolve().name

    @property
    def tree(self) -> Path:
        """The copy that everything but the tests works on."""
        return self.work / "after"

    @property
    def failed(self) -> Stage | None:
        """The stage that failed, if one did."""
        return next((stage for stage in self.stages if stage.status == "failed"), None)

    @property
    def exit_code(self) -> int:
        """0, or the code of the stage that failed."""
        return EXIT_CODES[self.failed.name] if self.failed else 0

    def settings(self, files: Mapping[str, TreeFile]) -> Settings:
        """Settings for reading the project's pipelines: its own packages are allowed, variables need not be set."""
        allowed = (*(self.asked.settings.allowed_imports or ()), *own_packages(files))
        return dataclasses.replace(self.asked.settings, allowed_imports=allowed, need_variables=False)
