"""Garbage collection: deleting what nothing names any more.

Two stages keep it from taking what a writer is about to name. What no record names, and nobody has written
or touched for the grace period, goes to the trash; a later collection deletes it there after another grace
period, or brings it back if a record names it by then. Whoever reads a blob that is in the trash brings it
back, too. So nothing is lost as long as a task commits what it wrote within the grace period, and no call to
the store, by whomever, sleeps for longer than what the task leaves of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound
from airflow_mlops.registry.reachable import COLLECTED, digest_of, reachable
from airflow_mlops.store import layout, trash
from airflow_mlops.store.base import Stat, Store

GRACE = timedelta(hours=48)
"""Longer than any task takes."""
REPORTS = timedelta(days=90)
"""How long a report is kept that no record names: Airflow's tasks may still link to it."""
JOBS = timedelta(days=30)
"""How long what a training job elsewhere reads and writes is kept where its task never came back; none takes longer."""

_EXAMPLES = 3


@dataclass
class Count:
    """Objects of one kind, their bytes, and the first few keys."""

    objects: int = 0
    bytes: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, found: Stat) -> None:
        """Count one more."""
        self.objects += 1
        self.bytes += found.size
        if len(self.examples) < _EXAMPLES:
            self.examples.append(found.key)


Counts = dict[str, Count]


@dataclass
class Report:
    """What a collection did, or would do (``dry_run``).

    ``trashed``, ``deleted`` and ``restored`` count by kind: ``blobs``, ``reports``, ``handover``; ``deleted``
    also ``jobs`` that nobody came back to and ``leftovers`` of killed writers. ``kept`` are the objects that records
    name, ``young`` those that none names yet.
    """

    dry_run: bool
    trashed: Counts = field(default_factory=dict)
    deleted: Counts = field(default_factory=dict)
    restored: Counts = field(default_factory=dict)
    kept: int = 0
    young: int = 0

    @property
    def sentence(self) -> str:
        """For people."""
        would = "would be " if self.dry_run else ""
        said = [
            f"{_objects(counts)} {would}{what}"
            for counts, what in (
                (self.trashed, "put in the trash"),
                (self.deleted, "deleted for good"),
                (self.restored, "restored from the trash"),
            )
            if counts
        ]
        done = "; ".join(said) or "nothing to collect"
        return f"{done}. {self.kept:,} objects are in use, {self.young:,} too young to judge."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        stages = {"trashed": self.trashed, "deleted": self.deleted, "restored": self.restored}
        counts = {stage: {kind: vars(count) for kind, count in kinds.items()} for stage, kinds in stages.items()}
        return {"dry_run": self.dry_run, **counts, "kept": self.kept, "young": self.young, "sentence": self.sentence}


def collect(
    store: Store,
    *,
    grace: timedelta = GRACE,
    reports: timedelta = REPORTS,
    dry_run: bool = False,
    now: datetime | None = None,
) -> Report:
    """Put what nothing names in the trash, and empty the trash of an earlier collection.

    It may be killed anywhere, repeated, and run beside writers, readers and other collections.

    :param grace: how old an object must be, before each of the two stages.
    :param reports: how old a report must be instead.
    :param now: aware; default: now.
    :raises CorruptObject: when a record is damaged, so that what it names is not known: nothing is deleted.
    """
    now = now or datetime.now(UTC)
    limits = dict.fromkeys((*COLLECTED, trash.PREFIX), now - grace)
    limits["reports/"] = now - max(grace, reports)
    # The trash last: an object on its way there is then seen at least once.
    present, blobs = set(), set()
    for prefix in (*COLLECTED, trash.PREFIX):
        for key in store.list(prefix):
            if digest := digest_of(key):
                present.add(digest)
                if key.startswith(("blobs/", trash.PREFIX + "blobs/")):
                    blobs.add(digest)
    try:
        reached = reachable(store, present, blobs)
    except CorruptObject as e:
        raise CorruptObject(
            f"nothing is collected, because a record is damaged: {e.message}",
            hint="run `airflow mlops registry fsck`, which says what to restore; then collect again",
        ) from e
    report = Report(dry_run)
    _empty_trash(store, reached, now - grace, report)
    for prefix in COLLECTED:
        for found in store.scan(prefix):
            digest = digest_of(found.key)
            if digest is None:
                continue
            if digest in reached:
                report.kept += 1
            elif _old(store, found, limits[prefix], report) and _trash(store, found, now, dry_run):
                _count(report.trashed, found.key, found)
    for key in [key for key in store.list(layout.pipelines_prefix()) if layout.is_of_job(key)]:
        with suppress(ObjectNotFound):  # its task came back
            found = store.stat(key)
            if found.modified < now - max(grace, JOBS):
                if not dry_run:
                    store.delete(key)
                report.deleted.setdefault("jobs", Count()).add(found)
    for left in store.sweep(now - grace, dry_run=dry_run):
        report.deleted.setdefault("leftovers", Count()).add(left)
    return report


def _empty_trash(store: Store, reached: set[bytes], limit: datetime, report: Report) -> None:
    for found, key in _trashed(store):
        needed = digest_of(found.key) in reached
        if needed and not store.exists(key):
            if report.dry_run or trash.restore(store, key):
                _count(report.restored, key, found)
        elif found.modified < limit:
            if not report.dry_run:
                store.delete(found.key)
            _count(report.deleted, key, found)


def _trashed(store: Store) -> Iterator[tuple[Stat, str]]:
    for found in store.scan(trash.PREFIX):
        if key := trash.original(found.key):
            yield found, key


def _old(store: Store, found: Stat, limit: datetime, report: Report) -> bool:
    """Whether it is old now, too: it may have been touched since it was listed."""
    try:
        if found.modified < limit and store.stat(found.key).modified < limit:
            return True
    except ObjectNotFound:  # another collection was faster
        return False
    report.young += 1
    return False


def _trash(store: Store, found: Stat, now: datetime, dry_run: bool) -> bool:
    if not dry_run:
        try:
            store.move(found.key, trash.removal(found.key, now))
        except ObjectNotFound:
            return False
    return True


def _count(counts: Counts, key: str, found: Stat) -> None:
    counts.setdefault(key.partition("/")[0], Count()).add(found)


def _objects(counts: Counts) -> str:
    objects, size = sum(c.objects for c in counts.values()), sum(c.bytes for c in counts.values())
    kinds = ", ".join(f"{c.objects:,} {kind}" for kind, c in counts.items())
    return f"{objects:,} objects ({kinds}; {size:,} bytes)"
