"""The stages of CI one at a time: each in another process than the one before it, perhaps on another machine.

What a stage needs of those before it lies in the store: the project's files at the commit, as one blob; what each
stage found, as a record; and what training left for the contract. The blobs are named by no record of a model: garbage
collection takes them, with the rows that they hold, when they are old enough. Records and bundles stay.
"""

from __future__ import annotations

import dataclasses
import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_mlops.delivery import stages
from airflow_mlops.delivery.bundle import pack, read_bundle
from airflow_mlops.delivery.record import Asked, Case, Check, Stage
from airflow_mlops.delivery.remote import Named
from airflow_mlops.delivery.repository import Repository
from airflow_mlops.delivery.tree import Tree, TreeFile
from airflow_mlops.exceptions import ConfigError, ObjectExists, ObjectNotFound
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import canonical_json, get_blob, get_blob_file, put_blob, put_blob_file

Say = Callable[[str], None]
CHECKOUT = "checkout"
"""The step before the stages: it decides which commit is delivered."""
_TRIAL = ("after", "before", "comparison", "not_compared", "contract")


@dataclass(frozen=True)
class Source:
    """A commit of a project, as it is handed from step to step: small, and plain JSON.

    :param ref: the branch or tag that named it, in full; ``None``: it was asked for by its own name.
    :param files: digest of the blob that holds the project's files.
    :param base: the commit whose bundle is deployed, which it is compared with; ``None``: none is.
    :param before: digest of the blob that holds the files of ``base``.
    """

    project: str
    commit: str
    ref: str | None
    files: str
    base: str | None = None
    before: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)

    @property
    def named(self) -> Named:
        """The commit, with the branch or tag, for looking whether that has moved."""
        return Named(self.commit, self.ref)


class Records:
    """What the steps of one delivery found: an object in the store for each, which a second try replaces.

    :param delivery: names the delivery: 64 hex digits.
    :param steps: names of all its steps, in their order.
    """

    def __init__(self, store: Store, project: str, delivery: str, steps: Sequence[str]) -> None:
        self.store = store
        self.project = project
        self.delivery = delivery
        self.steps = tuple(steps)

    def begin(self, step: str) -> None:
        """Take back what the steps behind ``step`` have said: it runs again, and what they saw is no more."""
        for later in self.steps[self.steps.index(step) :]:
            self.store.delete(self._key(later))

    def read(self, step: str) -> dict[str, Any] | None:
        """What a step found; ``None``: it has not said yet."""
        try:
            found: dict[str, Any] = json.loads(self.store.get(self._key(step)))
        except ObjectNotFound:
            return None
        return found

    def write(self, step: str, status: str, told: Sequence[str], **found: Any) -> dict[str, Any]:
        """Write what a step found and return it; ``status`` and ``told`` are those of a :class:`Stage`."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"step": step, "status": status, "told": list(told), "at": at, **found}
        self.store.put(self._key(step), canonical_json(record))
        return record

    def all(self) -> list[dict[str, Any]]:
        """What every step found that has said something, in their order."""
        return [record for step in self.steps if (record := self.read(step)) is not None]

    def _key(self, step: str) -> str:
        return layout.delivery_step(self.project, self.delivery, step)


def keep_files(store: Store, files: Tree, *, project: str, commit: str) -> str:
    """Keep a project's files at a commit for the steps to come; returns the blob's digest."""
    return put_blob(store, pack(files, project=project, commit=commit, packages={}))


def read_files(store: Store, digest: str) -> dict[str, TreeFile]:
    """Return what :func:`keep_files` kept; every byte is checked."""
    return dict(read_bundle(get_blob(store, digest), verifier=Verifier()).files)


def keep_bundle(store: Store, project: str, data: bytes, digest: str) -> None:
    """Keep a bundle that was built; keeping it twice is the same as once."""
    with suppress(ObjectExists):
        store.put_if_absent(layout.bundle(project, digest), data)


def read_stage(records: Records, name: str) -> Stage | None:
    """How a stage ended, by its record; ``None``: it has not."""
    record = records.read(name)
    if record is None:
        return None
    cases = tuple(Case(**case) for case in record["cases"])
    return Stage(name, record["status"], tuple(record["told"]), cases, record["seconds"])


def run_stage(records: Records, source: Source, name: str, asked: Asked, say: Say = lambda text: None) -> Stage:
    """Run one stage of CI on the files of ``source`` and keep what it found.

    :param asked: what CI is asked for; its ``folder`` and ``since`` do not count, the source has them.
    :raises ConfigError: a stage before it has left no record, or there is nothing to check.
    """
    records.begin(name)
    with tempfile.TemporaryDirectory(prefix="mlops-delivery-") as work:
        found = _check(records, source, name, asked, Path(work).resolve())
        stages.prepare(found)
        left = _restore(found, records)
        ended = stages.run_stage(found, name, say)
        stores = found.work / "stores"
        if name == "train" and stores.is_dir():
            left = _put_folder(records.store, stores, found.work)
        if found.bundle is not None and found.digest is not None:
            keep_bundle(records.store, source.project, found.bundle, found.digest)
        records.write(
            name,
            ended.status,
            ended.told,
            cases=[vars(case) for case in ended.cases],
            seconds=ended.seconds,
            trials={t.change.name: {part: getattr(t, part) for part in _TRIAL} for t in found.trials},
            bundle={"digest": found.digest, "content": found.content, "signed_by": found.signed_by},
            stores=left,
            report=_report(found),
        )
    return ended


def _check(records: Records, source: Source, name: str, asked: Asked, work: Path) -> Check:
    # The project's name is that of its folder, which is not there: nothing but a name and what lies outside of it.
    folder = work / "checkout" / source.project
    found = Check(
        dataclasses.replace(asked, folder=folder, since=None),
        Repository(folder, "", source.commit),
        read_files(records.store, source.files),
        [],
        work,
        base=source.base,
        files_before=read_files(records.store, source.before) if source.before else {},
    )
    for earlier in tuple(stages.STAGES)[: tuple(stages.STAGES).index(name)]:
        ended = read_stage(records, earlier)
        if ended is None:
            raise ConfigError(
                f"the stage {earlier} has left no record, and {name} builds on it",
                hint=f"run the delivery again from {earlier}: clear that task with all behind it",
            )
        found.stages.append(ended)
    return found


def _restore(found: Check, records: Records) -> str | None:
    """Put back what the stages before have found; returns the digest of what training left."""
    left: str | None = None
    for stage in found.stages:
        record = records.read(stage.name) or {}
        bundle: Mapping[str, Any] = record["bundle"]
        found.digest, found.content, found.signed_by = bundle["digest"], bundle["content"], bundle["signed_by"]
        for trial in found.trials:
            for part, value in record["trials"].get(trial.change.name, {}).items():
                setattr(trial, part, value)
        left = record["stores"]
    if left is not None:
        _get_folder(records.store, left, found.work)
    return left


def _report(found: Check) -> str | None:
    """The report in Markdown, once there is nothing to come."""
    from airflow_mlops.delivery.report import markdown

    if found.failed is None and len(found.stages) < len(stages.STAGES):
        return None
    return markdown(found)


def _put_folder(store: Store, folder: Path, scratch: Path) -> str:
    archive = scratch / "stores.tar"
    with tarfile.open(archive, "w") as out:
        out.add(folder, arcname=folder.name)
    return put_blob_file(store, archive)


def _get_folder(store: Store, digest: str, scratch: Path) -> None:
    archive = scratch / "stores.tar"
    get_blob_file(store, digest, archive)
    with tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
