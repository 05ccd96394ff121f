"""Checking a whole store: every object verified, every reference followed, and advice for what is damaged."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound, StoreError
from airflow_mlops.registry.blobs import Blobs
from airflow_mlops.registry.entry import Entry, unsealed
from airflow_mlops.registry.findings import Finding, Report, Severity
from airflow_mlops.registry.items import Items, whole
from airflow_mlops.registry.reachable import COLLECTED, digest_of
from airflow_mlops.registry.records import stored_pipelines
from airflow_mlops.registry.references import Referenced, digest_in, references
from airflow_mlops.registry.released import capture_pointers, released_captures, released_references, released_snapshots
from airflow_mlops.registry.salvage import Fold, Salvaged, fold, salvage, unreadable
from airflow_mlops.registry.shared import Shared
from airflow_mlops.registry.version import model_name
from airflow_mlops.store import layout, trash
from airflow_mlops.store.base import Store

_BACKUP = "restore this object from a backup"
_KNOWN = re.compile(
    r"pipelines/[^/]+/((log|ledger|holdouts/[0-9a-f]{64})/(\d{10}\.json|HEAD)|schema\.json|(rehearsal/)?(captures|checks)/[^/]+\.json|rollouts/[^/]+\.json)"
    r"|pipelines/[^/]+/experiments/[0-9a-f]{64}/(plan|result|trials/\d{2}\.\d{5,})\.json"
    r"|names/[^/]+\.json|index\.json"
)
_MOST_STRAYS = 20
_MOST_USERS = 3  # of a damaged object, that are told one by one


def check(store: Store, pipelines: Sequence[str] | None = None, *, deep: bool = True, repair: bool = False) -> Report:
    """Check the store; what is damaged is told with what is still good and what to do, and never raised.

    :param pipelines: only what these name; default: everything.
    :param deep: read and verify the objects, too, not only whether they are there.
    :param repair: delete the hints and indexes that are worn, so that the next writer makes them anew. Records
        and blobs are never changed.
    :raises StoreUnavailable: when the store as a whole does not answer.
    """
    report = Report(store.uri, deep)
    blobs = Blobs(store, deep)
    for pipeline in stored_pipelines(store) if pipelines is None else pipelines:
        _Pipeline(store, pipeline, blobs, report, repair).check()
    if pipelines is None:
        _index(store, report, repair)
        _others(store, blobs, report)
    report.objects, report.bytes = blobs.objects, blobs.bytes
    return report


class _Pipeline:
    """The check of one pipeline; adds to ``report``."""

    def __init__(self, store: Store, name: str, blobs: Blobs, report: Report, repair: bool) -> None:
        self.store, self.name, self.blobs, self.report, self.repair = store, name, blobs, report, repair
        self.shared = Shared(store)

    def check(self) -> None:
        """Check its logs, versions, captures, checks and schema."""
        log = salvage(self.store, layout.log_prefix(self.name))
        entries = [log.entries[seq] for seq in sorted(log.entries)]
        state, wrong = fold(self.store, entries)
        log.wrong |= wrong
        self._log(log, state, "registry")
        ledger = salvage(self.store, layout.ledger_prefix(self.name))
        self._log(ledger, None, "retrain ledger", "no training can be asked for")
        self._holdouts()
        changes = [*self._changes(e for e in entries if e.seq not in wrong)]
        released = released_snapshots(changes) | released_captures(self.store, self.name, changes)
        released |= released_references(changes)
        broken = self._versions(state, released)
        self._captures(released)
        self._records()
        self.report.pipelines[self.name] = _summary(self.name, log, state, broken)

    def add(
        self, severity: Severity, key: str, what: str, sound: str = "", do: str = "", *, repaired: bool = False
    ) -> None:
        """Add a finding."""
        self.report.findings.append(Finding(severity, key, what, sound, do, repaired))

    def _changes(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """What entries say of each model; a record whose shared part is damaged is told later, and stays as it is."""
        items = Items(self.store)
        for change in (change for entry in entries for change in items.expand(entry)):
            try:
                yield whole(self.shared, change)
            except CorruptObject:
                yield change

    # --- logs ------------------------------------------------------------------------------------

    def _holdouts(self) -> None:
        """Check the decisions on each holdout."""
        prefix = layout.holdouts_prefix(self.name)
        found = {key.removeprefix(prefix).partition("/")[0] for key in self.store.list(prefix)}
        for holdout in sorted(found):
            try:
                log = salvage(self.store, layout.holdout_prefix(self.name, holdout))
            except ValueError:
                continue  # a stray folder: told among what nobody knows
            self._log(log, None, f"decisions on holdout {holdout[:12]}", "no other candidate is judged on it")

    def _log(
        self, log: Salvaged, state: Fold | None, name: str, then: str = "nothing can be registered or promoted"
    ) -> None:
        for seq, what in sorted(log.wrong.items()):
            key = layout.log_entry(log.prefix, seq)
            said = f"Entry {seq} of {log.last} of the {name} of {self.name} {what}."
            if seq in log.copies:
                self.add("damage", key, said, "a pack holds a sound copy, and is read instead", f"{_BACKUP} soon")
                continue
            later = log.last - seq
            sound = f"entries 1 to {seq - 1}" if seq > 1 else ""
            sound += (" and " if sound and later else "") + (f"{later} later entries" if later else "")
            if state is not None and state.versions:
                sound += f"; they tell of {_told(self.name, state)}"
            hint = f"{_BACKUP}: until then {then}, and the {name} cannot be read"
            self.add("damage", key, said, sound or "nothing", hint)
        # The hint is a witness of entries that are missing at the end.
        repair = self.repair and all(seq in log.copies for seq in log.wrong)
        head = layout.log_head(log.prefix)
        worn = [layout.blob(digest) for digest in dict.fromkeys(log.worn)]
        if log.head_wrong:
            what = f"The hint where the {name} of {self.name} ends {log.head_wrong}."
            self.add("derived", head, what, "every entry", "nothing: the next writer rewrites it", repaired=repair)
        for key in worn:
            what = f"A summary of the {name} of {self.name} is missing or damaged."
            do = "nothing: readers go by the entries; with repair, the next writer makes it anew"
            self.add("derived", key, what, "every entry", do, repaired=repair)
        if repair and (log.head_wrong or worn):
            for key in (head, *worn):
                self.store.delete(key)

    # --- versions --------------------------------------------------------------------------------

    def _versions(self, state: Fold, released: set[bytes]) -> set[tuple[str | None, int]]:
        """Check what versions name; return those whose model cannot be loaded."""
        bad = {
            model: [
                (ref, wrong)
                for ref in references(self.store, self.shared, known, released)
                if (wrong := self._wrong(ref))
            ]
            for model, known in state.versions.items()
        }
        broken = {model for model, refs in bad.items() if any(ref.role == "model" for ref, _ in refs)}
        users: dict[tuple[str, str, str], list[tuple[str | None, int]]] = {}
        for model, refs in bad.items():
            for ref, wrong in refs:
                users.setdefault((ref.digest, ref.what, wrong), []).append(model)
        for model, refs in bad.items():
            for ref, wrong in refs:
                of = users[ref.digest, ref.what, wrong]
                if len(of) <= _MOST_USERS:
                    self._reference(state, model, ref, wrong, broken)
                elif model == of[0]:
                    self._shared_by_many(state, of, ref, wrong, broken)
        return broken

    def _wrong(self, ref: Referenced) -> str:
        if ref.page:
            return "" if self.blobs.page(ref.digest) else "is missing"
        return self.blobs.wrong(ref.digest) or (self.blobs.unpacked(ref.digest, *ref.packed) if ref.packed else "")

    def _shared_by_many(
        self, state: Fold, of: list[tuple[str | None, int]], ref: Referenced, wrong: str, broken: set[Any]
    ) -> None:
        """One finding for an object that many models of a fleet need."""
        some = ", ".join(f"{model_name(self.name, key)} v{number}" for key, number in of[:_MOST_USERS])
        serving = sum(state.champions.get(key) == number for key, number in of)
        who = f"{some} and {len(of) - _MOST_USERS:,} more"
        where = layout.blob(ref.digest) if not ref.page else f"{ref.page}…/{ref.digest}"
        if wrong == Blobs.IN_TRASH:
            do = "nothing: the next reader, or garbage collection, restores it"
            return self.add("derived", where, f"The {ref.what} of {who} is in the trash.", "its copy there", do)
        what = f"The {ref.what} of {who} {wrong}; {serving:,} of them are champions."
        if ref.page:
            return self.add("note", where, what, "the versions", "nothing, or run the step that wrote it again")
        sound = len(state.versions) - len(broken)
        do = f"{_BACKUP}, or {ref.again}"
        return self.add("damage", where, what, f"{sound:,} other versions can be loaded" if sound else "", do)

    def _reference(
        self, state: Fold, model: tuple[str | None, int], ref: Referenced, wrong: str, broken: set[Any]
    ) -> None:
        key, number = model
        champion = state.champions.get(key)
        is_champion = champion == number
        name = f"{model_name(self.name, key)} v{number}"
        who = f"{name}, which is the champion," if is_champion else name
        where = layout.blob(ref.digest) if not ref.page else f"{ref.page}…/{ref.digest}"
        if wrong == Blobs.IN_TRASH:
            do = "nothing: the next reader, or garbage collection, restores it"
            return self.add("derived", where, f"The {ref.what} of {who} is in the trash.", "its copy there", do)
        what = f"The {ref.what} of {who} {wrong}."
        if ref.page:
            return self.add("note", where, what, "the version", "nothing, or run the step that wrote it again")
        if ref.role != "model":
            sound = f"{name} can be loaded" if model not in broken else ""
            return self.add("damage", where, what, sound, f"{_BACKUP}, or {ref.again}")
        loadable = [n for k, n in sorted(state.versions, key=str) if k == key and (k, n) not in broken]
        sound = f"{_ranges(loadable)} can be loaded" if loadable else ""
        do = f"{_BACKUP}, or run the training again"
        if is_champion:
            before = state.before(key)
            back = [n for n in before if (key, n) not in broken]
            if back and back[-1] == before[-1]:
                sound += f"; v{back[-1]} is a sound champion to roll back to"
                # Quoted: a key comes from data, and the line is there to be pasted into a shell.
                named = shlex.quote(model_name(self.name, key))
                undo = f"airflow mlops registry rollback {named} --expected {number} --reason damaged"
                do = f"{_BACKUP}; or `{undo}`; or run the training again"
            elif others := [n for n in loadable if not state.versions[key, n].retired]:
                do = f"{_BACKUP}; or promote v{others[-1]}; or run the training again"
        return self.add("damage", where, what, sound, do)

    # --- what stands beside the logs ---------------------------------------------------------------

    def _captures(self, released: set[bytes]) -> None:
        for _, pointer in capture_pointers(self.store, self.name):
            digest = digest_in(pointer, "capture")
            if digest is None or bytes.fromhex(digest) in released:
                continue
            window = pointer.get("window") or {}
            said = f"The capture of {self.name} for {window.get('start')} … {window.get('end')}"
            again = f"{_BACKUP}, or run the batch inference of this window again"
            if wrong := self.blobs.wrong(digest):
                self.add("damage", layout.blob(digest), f"{said}: its list of contents {wrong}.", "", again)
                continue
            contents = self.blobs.json(digest)
            for part in (contents, contents.get("raw")):
                file = digest_in(part, "file")
                if file is not None and (wrong := self.blobs.wrong(file)):
                    self.add("damage", layout.blob(file), f"{said}: its data {wrong}.", "", again)

    def _records(self) -> None:
        for kind, fields, do in (
            (layout.captures_prefix, ("capture", "window"), "run the batch inference of this window again"),
            (layout.checks_prefix, ("result", "window"), "run the monitoring of this window again, or delete it"),
        ):
            for rehearsal in (False, True):
                for key in self.store.list(kind(self.name, rehearsal=rehearsal)):
                    if wrong := _unfit(self.store, key, fields):
                        what = "pointer to a capture" if "capture" in fields else "result of a check"
                        self.add("damage", key, f"A {what} of {self.name} {wrong}.", "every other window", do)
        for key in self.store.list(layout.rollouts_prefix(self.name)):
            if wrong := _unfit(self.store, key, ("rollout", "step", "failed", "window")):
                do = "run the batch inference of this window again, or delete it"
                self.add("damage", key, f"What a rollout of {self.name} rests on {wrong}.", "every other window", do)
        key = layout.schema(self.name)
        if self.store.exists(key) and (wrong := _unfit(self.store, key, ("columns",))):
            do = f"{_BACKUP}, or delete it: the next good run locks the schema anew"
            self.add("damage", key, f"The locked schema of {self.name} {wrong}.", "every version", do)


def _unfit(store: Store, key: str, fields: Sequence[str]) -> str:
    """What is wrong with a small record; empty: nothing."""
    try:
        body = json.loads(store.get(key))
    except ObjectNotFound:
        return ""
    except StoreError as e:
        if not unreadable(e):
            raise
        return f"cannot be read ({e.message})"
    except ValueError:
        return "is damaged: it is no JSON"
    missing = [f for f in fields if not isinstance(body, dict) or f not in body]
    return f"is damaged: it has no {', '.join(missing)}" if missing else ""


def _index(store: Store, report: Report, repair: bool) -> None:
    try:
        unsealed(store.get(layout.index()))
    except ObjectNotFound:
        return
    except ValueError:
        what, do = "The index of all pipelines is damaged.", "nothing: the next reader makes it anew"
        report.findings.append(Finding("derived", layout.index(), what, "every registry", do, repair))
        if repair:
            store.delete(layout.index())


def _others(store: Store, blobs: Blobs, report: Report) -> None:
    """What no check came by: damaged garbage, and objects that are not ours."""
    told = {f.key for f in report.findings}
    for prefix in COLLECTED:
        for found in store.scan(prefix):
            if digest_of(found.key) is None:
                _stray(found.key, report)
            elif prefix == "blobs/" and found.key not in told:
                wrong = blobs.wrong(found.key.rpartition("/")[2])
                if wrong and wrong != Blobs.IN_TRASH:
                    what = f"A blob that no version needs {wrong}."
                    report.findings.append(Finding("note", found.key, what, "", "nothing, or delete it"))
    for key in store.list(""):
        if not key.startswith((*COLLECTED, trash.PREFIX)) and not _KNOWN.fullmatch(key) and not layout.is_of_job(key):
            _stray(key, report)
    left = store.sweep(datetime.now(UTC), dry_run=True)
    if left:
        what = f"{len(left)} unfinished writes, {sum(f.size for f in left):,} bytes: running, or left by killed ones."
        report.findings.append(Finding("note", left[0].key, what, "", "nothing: garbage collection removes old ones"))


def _stray(key: str, report: Report) -> None:
    what = "Not an object of this store."
    if sum(f.what == what for f in report.findings) < _MOST_STRAYS:
        report.findings.append(Finding("note", key, what, "", "take it out if it does not belong here"))


def _told(pipeline: str, state: Fold) -> str:
    said = []
    for key in sorted({key for key, _ in state.versions}, key=str)[:5]:
        champion = state.champions.get(key)
        numbers = _ranges([n for k, n in state.versions if k == key])
        said.append(f"{model_name(pipeline, key)} {numbers}" + (f" with champion v{champion}" if champion else ""))
    return ", ".join(said)


def _summary(name: str, log: Salvaged, state: Fold, broken: set[Any]) -> str:
    versions = len(state.versions)
    sound = versions - len(broken)
    champions = [f"v{n}" for n in state.champions.values()]
    serving = f"champion {champions[0]}" if len(champions) == 1 else f"{len(champions)} champions"
    serving = serving if champions else "no champion"
    gaps = f", {len(log.wrong)} of {log.last} log entries damaged" if log.wrong else ""
    return f"{name}: {sound} of {versions} versions can be loaded, {serving}{gaps}."


def _ranges(numbers: Sequence[int]) -> str:
    """``v1 to v4, v6``."""
    return ", ".join(f"v{a}" if a == b else f"v{a} to v{b}" for a, b in _runs(sorted(numbers)))


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = last = None
    for number in numbers:
        if last is not None and number == last + 1:
            last = number
            continue
        if start is not None and last is not None:
            yield start, last
        start = last = number
    if start is not None and last is not None:
        yield start, last
