"""Run the past again: train a version anew from what its record names, and compare.

The library itself does the work, without a scheduler. The store is only read: what the run writes lies in
a temporary folder on top of it.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.config.models import Data, Features, Train
from airflow_mlops.exceptions import (
    CodeNotAllowed,
    ConfigError,
    CorruptObject,
    DataError,
    EvaluationError,
    ObjectNotFound,
    RegistryError,
    TrainingError,
    UntrustedArtifact,
)
from airflow_mlops.ml.candidate import featured, made_from, train_candidate
from airflow_mlops.ml.command import check_command
from airflow_mlops.ml.evaluation import Evaluation, evaluate
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.ml.rerun_findings import (
    Finding,
    compare_metrics,
    compare_models,
    compare_predictions,
    compare_values,
    look_at_data,
    read_config,
)
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.ml.splitting import split_mask
from airflow_mlops.registry.artifacts import environment, fetch_model
from airflow_mlops.registry.lineage import Answer, code_version, compare_code, compare_environment
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.registry.version import Version
from airflow_mlops.store import LocalStore, get_blob_file
from airflow_mlops.store.base import Store
from airflow_mlops.store.overlay import OverlayStore

Log = Callable[..., None]

_NEEDED = ("snapshot", "config", "config_hash", "seed", "model", "task")
# What the past run can be at odds with; anything else (a store that does not answer) ends the command.
_BROKEN = (CodeNotAllowed, DataError, TrainingError, EvaluationError, UntrustedArtifact, CorruptObject, ConfigError)


@dataclass(frozen=True)
class Rerun:
    """What came of training a version again.

    :param metrics: by name, ``{"recorded", "now", "delta"}``.
    :param failed: why it could not be trained or scored again; None: it was.
    :param hint: what to do about that.
    """

    version: str
    findings: tuple[Finding, ...]
    metrics: dict[str, dict[str, float]]
    failed: str | None = None
    hint: str | None = None

    def answer(self, what: str) -> Answer:
        """The answer about one part; ``unknown`` where it was not reached."""
        return next((f.answer for f in self.findings if f.what == what), "unknown")

    @property
    def verified(self) -> bool:
        """Whether the version was made again from the same data, configuration and code.

        Its metrics and each prediction are equal to the last bit, or where no evaluation was recorded, the
        model's bytes are. Another environment, or a part that was not recorded, is no difference by itself.
        """
        if self.failed is not None:
            return False
        if any(self.answer(what) == "different" for what in ("data", "config", "code", "metrics", "predictions")):
            return False
        return "same" in (self.answer("metrics"), self.answer("model"))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "version": self.version,
            "verified": self.verified,
            "findings": [asdict(f) | {"details": list(f.details)} for f in self.findings],
            "metrics": self.metrics,
            "failed": self.failed,
            "hint": self.hint,
        }


def rerun(
    store: Store,
    version: Version,
    *,
    allowed_imports: Sequence[str] = (),
    allow_commands: bool = False,
    trusted_types: Sequence[str] = (),
    log: Log = lambda *_: None,
    folder: Path | None = None,
    verifier: Verifier | None = None,
) -> Rerun:
    """Train the version again and compare data, configuration, code, environment, metrics and the model's bytes.

    Nothing is registered, and nothing is written to ``store``. The recorded model is not loaded; of a fleet's model the
    preparation that it shares with the others is, and taken as it was recorded.

    :param folder: where a training command runs; default: where its files were.
    :param verifier: whose signatures count where that preparation is loaded.
    :raises RegistryError: the record does not say how the model was trained.
    :raises CodeNotAllowed: it was trained by a command, and commands are not allowed here.
    :raises StoreUnavailable: as the store does.
    """
    record = version.record
    if missing := [name for name in _NEEDED if name not in record]:
        raise RegistryError(
            f"{version.name} cannot be trained again: its record has no {', '.join(missing)}",
            hint="only what this package has trained says what it was made from; an imported model does not",
        )
    with tempfile.TemporaryDirectory(prefix="mlops-rerun-") as scratch:
        # Reading, too, may write: what is found in the trash is restored.
        work = OverlayStore(LocalStore(Path(scratch)), store)
        again = _Again(work, version, tuple(allowed_imports), tuple(trusted_types), log, verifier or Verifier())
        return again.run(allow_commands, folder)


class _Again:
    """One rerun, and what it has found so far."""

    def __init__(
        self,
        store: Store,
        version: Version,
        allowed_imports: Sequence[str],
        trusted_types: Sequence[str],
        log: Log,
        verifier: Verifier,
    ) -> None:
        self.verifier = verifier
        self.store, self.version, self.record = store, version, version.record
        self.allowed_imports, self.trusted_types, self.log = allowed_imports, trusted_types, log
        self.findings: list[Finding] = []

    def run(self, allow_commands: bool, folder: Path | None) -> Rerun:
        """Compare part by part, as far as it goes."""
        self.log("Data: checking the snapshot %s", str(self.record["snapshot"].get("snapshot"))[:12])
        data_found = self._found(look_at_data(self.store, self.version))
        config_found, sections = read_config(self.record)
        self._found(config_found)
        if data_found.answer == "different" or sections is None:
            self._code_and_environment(None)
            broken = data_found if data_found.answer == "different" else config_found
            return self._ended(f"{broken.what}: {broken.summary}")
        data, train_config, features = sections
        if self.version.key is not None and "of" in self.record:
            return self._run_key(data, train_config, features)
        check_command(train_config.command, allowed=allow_commands)
        before = _evaluation(self.store, self.version)
        try:
            made = train_candidate(
                self.store,
                self.record["snapshot"],
                data=data,
                train_config=train_config,
                features=features,
                metrics=_names(before)[:1],
                task=self.record["task"],
                allowed_imports=self.allowed_imports,
                trusted_types=self.trusted_types,
                log=self.log,
                folder=folder or _folder(train_config.command, self.record.get("code") or {}),
                key=self.version.key,
            )
        except _BROKEN as e:
            self._code_and_environment(None)
            return self._ended(e.message, e.hint)
        self._code_and_environment(made["code"])
        try:
            now = self._score(made, data, features, before)
        except _BROKEN as e:
            return self._ended(e.message, e.hint)
        metrics, metrics_found = compare_metrics(_recorded_metrics(self.version, before), now)
        self._found(metrics_found)
        predictions = self._found(compare_predictions(before, now))
        self._found(compare_models(self.record["model"], made["model"], predictions))
        return Rerun(self.version.name, tuple(self.findings), metrics)

    def _run_key(self, data: Data, train_config: Train, features: Features | None) -> Rerun:
        """Train one model of a fleet again; what it shares with the others is taken as recorded."""
        from airflow_mlops.ml.fleet.again import train_key_again

        self.log("Rows: those of its key; the preparation that the fleet shares is taken as it was recorded")
        try:
            made = train_key_again(
                self.store,
                self.version,
                data,
                allowed_imports=self.allowed_imports,
                trusted_types=self.trusted_types,
                verifier=self.verifier,
            )
        except _BROKEN as e:
            self._code_and_environment(None)
            return self._ended(e.message, e.hint)
        self._code_and_environment(made_from(data, train_config, features)["code"])
        metrics, found = compare_values(self.record["metrics"], made.metrics)
        self._found(found)
        model = Finding("predictions", "unknown", "not recorded")
        self._found(compare_models(self.record["model"], {"digest": made.digest}, model))
        return Rerun(self.version.name, tuple(self.findings), metrics)

    def _found(self, finding: Finding) -> Finding:
        self.findings.append(finding)
        return finding

    def _ended(self, why: str, hint: str | None = None) -> Rerun:
        return Rerun(self.version.name, tuple(self.findings), {}, why, hint)

    def _code_and_environment(self, now: dict[str, Any] | None) -> None:
        """Compare them with the code just used; None: with the files where they were."""
        then = self.record.get("code") or {}
        compared = compare_code(then, code_version(then.get("files", {})) if now is None else now)
        self._found(Finding("code", *compared))
        self._found(Finding("env", *compare_environment(self.record["model"].get("environment"), environment())))

    def _score(
        self, made: dict[str, Any], data: Data, features: Features | None, before: Evaluation | None
    ) -> Evaluation:
        """Score the holdout with the model just made."""
        frame = Snapshot.load(self.store, made["snapshot"]).to_pandas(self.store)
        holdout = split_mask(frame, data, made["seed"])
        rows = featured(frame, data, features.callable if features else None, self.allowed_imports)[holdout]
        schema = FeatureSchema.from_dict(made["schema"])
        # Made a moment ago by this process, for itself, and so unsigned.
        model = fetch_model(self.store, made["model"], trusted=self.trusted_types, verifier=Verifier())
        # Labels were kept where a gate asked for them.
        labels = made["task"] == "classification" and before is not None and "candidate_label" in before.frame
        return evaluate(
            candidate=(model, schema.check(rows)),
            champion=None,
            y=rows[data.target],
            task=made["task"],
            metrics=_names(before),
            gate_metrics=["accuracy"] if labels else [],
            classes=schema.classes,
            positive=schema.positive,
            log=self.log,
        )


def _folder(command: str | None, code: dict[str, Any]) -> Path | None:
    """Where a command ran: the folder under which its recorded files have the names that it uses."""
    words = [str(Path(word)) for word in shlex.split(command or "")]
    for path in code.get("files", {}):
        for word in words:
            if path != word and path.endswith(f"/{word}"):
                return Path(path.removesuffix(f"/{word}"))
    return None


# --- the evaluation ----------------------------------------------------------------------------------


def _evaluation(store: Store, version: Version) -> Evaluation | None:
    """The newest recorded evaluation, row by row; None where there is none, or it was deleted."""
    notes = version.notes.get("evaluation")
    if not notes:
        return None
    with tempfile.TemporaryDirectory(prefix="mlops-rerun-") as folder:
        path = Path(folder, "evaluation.parquet")
        try:
            get_blob_file(store, notes[-1]["evaluation"], path)
        except ObjectNotFound:
            return None
        return Evaluation.from_parquet(path)


def _names(evaluation: Evaluation | None) -> list[str]:
    """Metrics in the order that was asked for; the first one steers a search that names none."""
    return [m.name for m in evaluation.metrics] if evaluation else []


def _recorded_metrics(version: Version, before: Evaluation | None) -> dict[str, float]:
    if before is not None:
        return {m.name: m.candidate for m in before.metrics}
    notes = version.notes.get("evaluation")
    return {name: m["candidate"] for name, m in notes[-1]["metrics"].items()} if notes else {}
