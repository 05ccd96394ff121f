"""Reading a log that may be damaged: what can be known of it, before and after each damaged entry."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound, StoreError
from airflow_mlops.registry.entry import Entry, unsealed
from airflow_mlops.registry.items import Items
from airflow_mlops.registry.models import Model as Aliases
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import get_json

Model = tuple[str | None, int]


@dataclass
class Salvaged:
    """A log's sound entries by seq, and what is wrong with the others.

    :param wrong: seq → what is wrong, like "is missing".
    :param copies: damaged entries of which a pack holds a sound copy, which is among ``entries``.
    :param head: the hint, where it is usable; ``head_wrong``: why it is not.
    :param worn: digests of packs and checkpoints that cannot be used.
    """

    prefix: str
    entries: dict[int, Entry] = field(default_factory=dict)
    wrong: dict[int, str] = field(default_factory=dict)
    copies: set[int] = field(default_factory=set)
    head: dict[str, Any] | None = None
    head_wrong: str = ""
    worn: list[str] = field(default_factory=list)

    @property
    def last(self) -> int:
        """Seq of the last entry there is, or was."""
        return max([*self.entries, *self.wrong], default=0)


def salvage(store: Store, prefix: str) -> Salvaged:
    """Read every entry of the log under ``prefix``; damage is told, not raised."""
    log = Salvaged(prefix)
    numbers = [number for key in store.list(prefix) if (number := _number(key, prefix))]
    _read_head(store, log)
    last = max([*numbers, log.head["seq"] if log.head else 0], default=0)

    def read(seq: int) -> Entry | str:
        try:
            return Entry.parse(seq, json.loads(store.get(layout.log_entry(prefix, seq))))
        except ObjectNotFound:
            return "is missing"
        except StoreError as e:
            if not unreadable(e):
                raise
            return f"cannot be read ({e.message})"
        except ValueError:
            return "is damaged: it is no log entry, or does not match its checksum"

    every = range(1, last + 1)
    for seq, found in zip(every, parallel(read, every, store), strict=True):
        if isinstance(found, Entry):
            log.entries[seq] = found
        else:
            log.wrong[seq] = found
    _chain(log)
    if log.head is not None:
        end = log.entries.get(log.head["seq"])
        if end is not None and end.checksum != log.head["checksum"]:
            log.head_wrong = "names another entry than was committed"
        _packs(store, log)
    return log


def unreadable(e: StoreError) -> bool:
    """Whether one object cannot be read, rather than the whole store."""
    return not e.retryable or isinstance(e.__cause__, OSError)


def _number(key: str, prefix: str) -> int | None:
    name = key.removeprefix(prefix)
    return int(name[:10]) if len(name) == 15 and name[:10].isdigit() and name.endswith(".json") else None


def _chain(log: Salvaged) -> None:
    """An entry that does not follow from the one before is not the one that was committed."""
    for seq in sorted(log.entries):
        before = log.entries.get(seq - 1)
        if seq == 1 or before is not None:
            expected = before.checksum if before else ""
            if log.entries[seq].prev != expected:
                after = log.entries.get(seq + 1)
                # Which of the two was replaced, the entry after them knows.
                culprit = seq if seq == 1 or after is None or after.prev != log.entries[seq].checksum else seq - 1
                log.wrong[culprit] = "is not the entry that was committed there"
    for seq in log.wrong:
        log.entries.pop(seq, None)


def _read_head(store: Store, log: Salvaged) -> None:
    try:
        head = unsealed(store.get(layout.log_head(log.prefix)))
        if head.get("log") != log.prefix:
            raise ValueError(f"belongs to {head.get('log')}")
        log.head = head
    except ObjectNotFound:
        pass
    except ValueError:
        log.head_wrong = "is unreadable"


def _packs(store: Store, log: Salvaged) -> None:
    """Look whether packs and checkpoint are there; take from the packs what is damaged among the entries."""
    head = log.head or {}
    for digest in head.get("packs", ()):
        try:
            bodies = get_json(store, digest)
            for body in bodies:
                entry = Entry.parse(body["seq"], body)
                after = log.entries.get(entry.seq + 1)
                if entry.seq in log.wrong and (after is None or after.prev == entry.checksum):
                    log.entries[entry.seq] = entry
                    log.copies.add(entry.seq)
        except (CorruptObject, ObjectNotFound, ValueError, TypeError, KeyError):
            log.worn.append(digest)
    if checkpoint := head.get("checkpoint"):
        for digest in _checkpoint(store, checkpoint["digest"]):
            try:
                get_json(store, digest)
            except (CorruptObject, ObjectNotFound, ValueError):
                log.worn.append(digest)


def _checkpoint(store: Store, digest: str) -> Iterator[str]:
    """The checkpoint's own digest, and those of its pages."""
    yield digest
    try:
        root = get_json(store, digest)
        yield from (digest for _, _, digest in root["models"]["pages"])
        for table in ("versions", "entries"):
            yield from root[table]["pages"]
    except (CorruptObject, ObjectNotFound, ValueError, TypeError, KeyError):
        return


@dataclass
class Known:
    """One version, as far as the sound entries tell."""

    key: str | None
    number: int
    at: str
    record: dict[str, Any]
    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    retired: bool = False


@dataclass
class Fold:
    """What sound entries add up to; what damaged ones did is left out."""

    versions: dict[Model, Known] = field(default_factory=dict)
    aliases: dict[str | None, Aliases] = field(default_factory=dict)

    @property
    def champions(self) -> dict[str | None, int]:
        """The champion of each model key that has one."""
        return {key: found.champion for key, found in self.aliases.items() if found.champion is not None}

    def before(self, key: str | None) -> list[int]:
        """Former champions that a rollback would return to, the latest last."""
        return self.aliases[key].before if key in self.aliases else []

    def needed(self) -> set[Model]:
        """Versions that serve, are tried, or would serve after a rollback."""
        return {
            (key, number)
            for key, found in self.aliases.items()
            for number in (found.champion, found.challenger, *found.before[-1:])
            if number is not None
        }

    def take(self, entry: Entry) -> None:
        """Take in an entry, or one item of a batch."""
        body, model = entry.payload, (entry.key, entry.payload["version"])
        aliases = self.aliases.setdefault(entry.key, Aliases(entry.key))
        if entry.type == "register":
            self.versions[model] = Known(*model, entry.at, body["record"])
        elif entry.type == "annotate" and model in self.versions:
            self.versions[model].notes.append((body["kind"], body["note"]))
        elif entry.type == "promote":
            aliases.crown(model[1])
        elif entry.type == "rollback":
            aliases.step_back(model[1])
        elif entry.type == "challenger":
            aliases.try_out(model[1])
        elif entry.type == "rollout":
            aliases.roll(entry.seq, body)
        elif entry.type == "retire":
            aliases.retire(model[1])
            if model in self.versions:
                self.versions[model].retired = True


def fold(store: Store, entries: Iterable[Entry]) -> tuple[Fold, dict[int, str]]:
    """Fold a registry's sound entries; also return what is wrong with the others: seq → what."""
    found, wrong, items = Fold(), {}, Items(store)
    for entry in entries:
        try:
            for change in items.expand(entry):
                found.take(change)
        except (CorruptObject, KeyError, TypeError, AttributeError) as e:
            wrong[entry.seq] = e.message if isinstance(e, CorruptObject) else f"cannot be understood ({e!r})"
    return found, wrong
