"""One pipeline's versions and aliases written to one MLflow server, over and over with the same result.

MLflow lets two workers create the same thing twice: which run and version there stand for one of ours is
decided by a commit to our log.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from airflow_mlops.exceptions import RegistryError
from airflow_mlops.registry.entry import op_id
from airflow_mlops.registry.mlflow_client import Target, failed_with
from airflow_mlops.registry.mlflow_facts import TAG, metrics, params, tags
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.version import Version, model_name
from airflow_mlops.store.content import get_blob_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")

KIND = "mlflow"
"""Kind of the notes that say what stands for a version in MLflow, or why nothing does yet."""

ALIASES = ("champion", "challenger")

# Our registry moved on while its aliases were copied: this often in one task means something else is wrong.
_TRIES = 20
_RACERS = 6
_BATCH = 100  # the most that MLflow takes at once
# What the server answers to one of two that insert the same tag or alias: it looks, then inserts.
_RACES = ("BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "RESOURCE_CONFLICT")
_GONE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_STATE")


@dataclass(frozen=True)
class Mirrored:
    """What stands for a version in MLflow: a run, and a version of a registered model."""

    run_id: str
    model: str
    model_version: str


class Mirror:
    """One pipeline's registry and one MLflow server."""

    def __init__(self, registry: Registry, client: MlflowClient, target: Target) -> None:
        self._registry = registry
        self._client = client
        self._target = target
        self._found_experiment: str | None = None
        self._shown: dict[tuple[str | None, int], Mirrored] = {}

    def model(self, key: str | None) -> str:
        """Name of the registered model; MLflow allows no ``/`` and ``:``."""
        name = model_name(self._registry.pipeline, key)
        return self._target.prefix + "".join(quote(c, safe="") if c in "%/:" else c for c in name)

    # --- versions --------------------------------------------------------------------------------

    def show(self, version: Version) -> Mirrored:
        """Make MLflow show the version; returns what stands for it there."""
        return self._repeating(lambda: self._show(self._registry.get(version.number, version.key)))

    def _repeating(self, act: Callable[[], T]) -> T:
        """Do it again where another worker was faster: then its rows are there to be found."""
        from mlflow.exceptions import MlflowException

        for _ in range(_RACERS):
            try:
                return act()
            except MlflowException as e:
                if not failed_with(e, *_RACES):
                    raise
            time.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - jitter, not a secret
        return act()

    def _show(self, version: Version) -> Mirrored:
        found = self._claimed(version)
        place, run = found or self._claim(version)
        self._tell(version, place, run)
        self._caught_up(version, place)
        self._shown[version.key, version.number] = place
        return place

    def _claimed(self, version: Version) -> tuple[Mirrored, Run] | None:
        """What stands for the version by our log, if MLflow still has it."""
        place = self._place(version)
        if place is None:
            return None
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(place.run_id)
            self._client.get_model_version(place.model, place.model_version)
        except MlflowException as e:
            if failed_with(e, *_GONE):
                return None
            raise
        return (place, run) if run.info.lifecycle_stage == "active" else None

    def _claim(self, version: Version) -> tuple[Mirrored, Run]:
        """Take what an earlier try left or create it; where another worker was first, its own counts."""
        op = _operation(version)
        run = next(self._runs(op), None) or self._client.create_run(
            self._experiment(),
            start_time=_milliseconds(version.registered_at),
            tags={f"{TAG}.op": op},
            run_name=version.name,
        )
        run_id, model = run.info.run_id, self.model(version.key)
        self._create_model(model)
        found = [v for v in self._client.search_model_versions(f"run_id = '{run_id}'") if v.name == model]
        made = found[0] if found else self._client.create_model_version(
            model, f"{run.info.artifact_uri}/model", run_id, await_creation_for=0
        )  # fmt: skip
        mine = Mirrored(run_id, model, str(made.version))
        before = self._place(version)
        claimed = self._registry.annotate(
            version.number,
            KIND,
            {"server": self._target.uri, **vars(mine)},
            op_id=op_id(KIND, op, self._target.uri, model, before.run_id if before else None),
            key=version.key,
        )
        place = self._place(claimed) or mine
        if place == mine:
            return mine, run
        if place.model_version != mine.model_version:
            self._client.delete_model_version(model, mine.model_version)
        if place.run_id != mine.run_id:
            self._client.delete_run(mine.run_id)
        return place, self._client.get_run(place.run_id)

    def _place(self, version: Version) -> Mirrored | None:
        """What our log says stands for the version in that model of this server."""
        here = self._target.uri, self.model(version.key)
        for note in reversed(version.notes.get(KIND, [])):
            if "run_id" in note and (note["server"], note["model"]) == here:
                return Mirrored(note["run_id"], note["model"], note["model_version"])
        return None

    def sweep(self, version: Version, place: Mirrored) -> None:
        """Delete what a worker that was killed left beside what stands for the version."""
        for run in self._runs(_operation(version)):
            run_id = run.info.run_id
            for found in self._client.search_model_versions(f"run_id = '{run_id}'"):
                if found.name == place.model and str(found.version) != place.model_version:
                    self._client.delete_model_version(place.model, found.version)
            if run_id != place.run_id:
                self._client.delete_run(run_id)

    def _runs(self, op: str) -> Iterator[Run]:
        """Runs in MLflow that were made for this version, oldest first."""
        yield from self._client.search_runs(
            [self._experiment()], f"tags.`{TAG}.op` = '{op}'", order_by=["attributes.start_time", "attributes.run_id"]
        )

    def _experiment(self) -> str:
        if self._found_experiment is None:
            name = f"{self._target.prefix}{self._registry.pipeline}"
            found = self._client.get_experiment_by_name(name)
            if found is None:
                from mlflow.exceptions import MlflowException

                try:
                    return self._client.create_experiment(name)
                except MlflowException as e:
                    found = self._client.get_experiment_by_name(name)
                    if not failed_with(e, "RESOURCE_ALREADY_EXISTS") or found is None:
                        raise
            self._found_experiment = found.experiment_id
        return self._found_experiment

    def _create_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name, tags={f"{TAG}.pipeline": self._registry.pipeline})
        except MlflowException as e:
            if not failed_with(e, "RESOURCE_ALREADY_EXISTS"):
                raise

    # --- what is said of a version ---------------------------------------------------------------

    def _tell(self, version: Version, place: Mirrored, run: Run) -> None:
        """Say what MLflow does not have yet: params, metrics, tags, files."""
        from mlflow.entities import Metric, Param, RunTag

        at = _milliseconds(version.registered_at)
        there = run.data
        said = tags(version)
        # The same time and step for the same number: MLflow keeps a repetition once.
        new_metrics = [Metric(n, v, at, step) for n, v, step in metrics(version) if there.metrics.get(n) != v]
        new_params = [Param(n, v) for n, v in params(version).items() if n not in there.params]
        new_tags = [RunTag(n, v) for n, v in said.items() if there.tags.get(n) != v]
        for first in range(0, max(len(new_metrics), len(new_params), len(new_tags)), _BATCH):
            part = slice(first, first + _BATCH)
            self._client.log_batch(place.run_id, new_metrics[part], new_params[part], new_tags[part])
        self._upload(version, place, there.tags)
        known = self._client.get_model_version(place.model, place.model_version).tags
        for name, value in said.items():
            if name.startswith(TAG) and known.get(name) != value:
                self._client.set_model_version_tag(place.model, place.model_version, name, value)
        if run.info.status != "FINISHED":
            self._client.set_terminated(place.run_id, "FINISHED", end_time=at)

    def _upload(self, version: Version, place: Mirrored, there: dict[str, str]) -> None:
        """Upload model file and card; the tags that say so are set last."""
        info = version.record.get("model") or {}
        # A plain file without MLmodel: MLflow itself never loads it, and so never as pickle.
        files = {"model": (info.get("digest"), {f"model/model.{info.get('format')}": info.get("digest")})}
        if info.get("format") == "pack":
            # Of a fleet's model the pack it lies in, with what goes before it.
            names = {"model/models.parquet": info["pack"], "model/prepare.skops": (info["prepare"] or {}).get("digest")}
            files["model"] = info["digest"], {name: digest for name, digest in names.items() if digest}
        if cards := version.notes.get("card"):
            digests = {"model_card.md": cards[-1]["markdown"], "model_card.html": cards[-1]["html"]}
            files["card"] = cards[-1]["html"], digests
        for what, (said, digests) in files.items():
            if said and there.get(f"{TAG}.uploaded.{what}") != said:
                for name, digest in digests.items():
                    self._upload_one(place, name, digest)
                self._client.set_tag(place.run_id, f"{TAG}.uploaded.{what}", said)

    def _upload_one(self, place: Mirrored, name: str, digest: str) -> None:
        with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
            path = Path(folder, Path(name).name)
            get_blob_file(self._registry.store, digest, path)
            self._client.log_artifact(place.run_id, str(path), str(Path(name).parent) if "/" in name else None)

    def _caught_up(self, version: Version, place: Mirrored) -> None:
        """Where the last note on the version says that MLflow failed, say that it shows it now."""
        notes = self._registry.get(version.number, version.key).notes.get(KIND, [])
        if notes and "failed" in notes[-1]:
            operation = op_id(KIND, "caught up", _operation(version), self._target.uri, len(notes))
            note = {"server": self._target.uri, **vars(place)}
            self._registry.annotate(version.number, KIND, note, op_id=operation, key=version.key)

    # --- aliases ---------------------------------------------------------------------------------

    def point_aliases(self, key: str | None) -> None:
        """Make MLflow's aliases those of the registry, also while others promote.

        MLflow takes whatever was written last. So the registry is read again after each write: whoever
        writes last finds out that it moved on, and writes again.
        """
        self._repeating(lambda: self._point_aliases(key))

    def _point_aliases(self, key: str | None) -> None:
        wanted = self._aliases(key)
        for _ in range(_TRIES):
            places = {a: self._shown.get((key, v.number)) or self.show(v) for a, v in wanted.items() if v is not None}
            if not places:
                return
            model = self.model(key)
            there = self._client.get_registered_model(model).aliases
            for alias in ALIASES:
                if alias in places and str(there.get(alias)) != places[alias].model_version:
                    self._client.set_registered_model_alias(model, alias, places[alias].model_version)
                elif alias not in places and alias in there:
                    self._client.delete_registered_model_alias(model, alias)
            now = self._aliases(key)
            if _numbers(now) == _numbers(wanted):
                return
            wanted = now
        raise RegistryError(
            f"the aliases of {model_name(self._registry.pipeline, key)} changed {_TRIES} times while they were copied",
            hint="run `airflow mlops registry export --to mlflow` when nothing is being promoted",
        )

    def _aliases(self, key: str | None) -> dict[str, Version | None]:
        return {"champion": self._registry.champion(key), "challenger": self._registry.challenger(key)}


def _numbers(aliases: dict[str, Version | None]) -> dict[str, int | None]:
    return {alias: version.number if version else None for alias, version in aliases.items()}


def _operation(version: Version) -> str:
    """Name a version among all that any store has shown to this server."""
    return op_id(KIND, version.pipeline, version.key, version.number, version.registered_at, version.model)


def _milliseconds(at: str) -> int:
    return int(datetime.fromisoformat(at).timestamp() * 1000)
