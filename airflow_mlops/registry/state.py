"""What a registry's entries add up to: summaries of versions, and aliases. Records stay in their entries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound, RegistryError
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.items import BATCH, Items
from airflow_mlops.registry.models import Model, Models
from airflow_mlops.registry.pages import Pages, UnusablePage
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import get_json, put_json

_FORMAT = 2
_METRICS = 8
_SPARED, _UNSPARED = 32, 500  # of how many models one item that a reader takes in; the most of them
_TYPES = ("register", "annotate", "promote", "rollback", "retire", "tag", "challenger", "rollout")


@dataclass
class Row:
    """Summary of one version.

    :param seq: the entry that registered it, where its record is.
    :param more: what is set of ``model`` (digest), ``metrics`` (by name), ``promoted``, ``retired`` (times),
        ``tags``, ``notes`` (seqs of the entries that say something about it), ``by`` (who promoted it, or went back
        to it, if a person did).
    """

    key: str | None
    number: int
    seq: int
    at: str
    more: dict[str, Any]


class State:
    """The fold of a registry's log; a :class:`~airflow_mlops.registry.memory.Memory`."""

    def __init__(self, store: Store, prefix: str, items: Items) -> None:
        self._store, self._prefix, self._items = store, prefix, items
        self.clear()

    def clear(self) -> None:
        """Go back to before the first entry."""
        self.seq, self.checksum, self.weight = 0, "", 0
        self.at, self.action = "", ""
        self.models = Models(self._store)
        self._versions = Pages(self._store)  # key, number, seq, at, more
        self._entries = Pages(self._store)  # op id, checksum
        self._by_op: dict[str, int] = {}
        self._all_ops = True

    def state(self) -> State:
        """Itself."""
        return self

    # --- looking ---------------------------------------------------------------------------------

    def model(self, key: str | None) -> Model:
        """The model of this key; an empty one where nothing is registered."""
        return self.models.get(key) or Model(key)

    def row(self, model: Model, number: int) -> Row:
        """Summary of a version that exists."""
        return Row(*self._versions[model.places[number - 1]])

    def rows(self, model: Model) -> list[Row]:
        """Summaries of every version of a model, oldest first."""
        if len(model.places) * 2 > len(self._versions):
            every = self._versions.rows()
            return [Row(*every[place]) for place in model.places]
        return [Row(*self._versions[place]) for place in model.places]

    def status(self, model: Model, row: Row) -> str:
        """``candidate``, ``challenger``, ``champion`` or ``retired``."""
        if row.number == model.champion:
            return "champion"
        if row.number == model.challenger:
            return "challenger"
        return "retired" if "retired" in row.more else "candidate"

    @property
    def size(self) -> int:
        """How many versions there are."""
        return len(self._versions)

    def find(self, op_id: str) -> int | None:
        """The seq of an operation's entry."""
        if (seq := self._by_op.get(op_id)) is None and not self._all_ops:
            rows = self._entries.rows()
            # The first one of an operation is the one that counts.
            self._by_op = {op: seq for seq, (op, _) in reversed([*enumerate(rows, 1)])}
            self._all_ops = True
            seq = self._by_op.get(op_id)
        return seq

    def due(self, least: int) -> bool:
        """Whether a checkpoint is due: it spares readers work, and writes again what has changed since the last.

        :param least: entries, or items of batches, that are too few for one; of many models more are.
        """
        return self.weight >= max(least, min(len(self.models) // _SPARED, _UNSPARED))

    def checksum_of(self, seq: int) -> str:
        """The checksum of an entry taken in."""
        checksum: str = self._entries[seq - 1][1]
        return checksum

    def recall(self, seq: int) -> Entry | None:
        """Entries are not kept."""
        return None

    # --- folding ---------------------------------------------------------------------------------

    def take(self, entry: Entry) -> None:
        """Take in the next entry.

        :raises RegistryError: when it is of a type that this release does not know.
        :raises CorruptObject: when it makes no sense, or the items it names are missing.
        """
        try:
            for change in self._changes(entry):
                self._apply(change)
                self.weight += 1
        except (KeyError, IndexError, TypeError, AttributeError) as e:
            raise CorruptObject(
                f"entry {entry.seq} of {self._prefix} in {self._store.uri} does not fit what was before it: {e!r}",
                hint="restore this folder from a backup",
            ) from e
        self._entries.append([entry.op_id, entry.checksum])
        self._by_op.setdefault(entry.op_id, entry.seq)
        self.seq, self.checksum = entry.seq, entry.checksum
        self.at, self.action = entry.at, entry.payload["action"] if entry.type == BATCH else entry.type

    def _changes(self, entry: Entry) -> Iterator[Entry]:
        for change in self._items.expand(entry):
            if change.type not in _TYPES:
                raise RegistryError(
                    f"entry {entry.seq} of {self._prefix} in {self._store.uri} is of the unknown type {change.type!r}",
                    hint="it was written by a newer airflow-mlops: upgrade this installation",
                )
            yield change

    def _apply(self, e: Entry) -> None:
        number = e.payload["version"]
        if e.type == "register":
            model = self.models.make(e.key)
            model.places.append(len(self._versions))
            self._versions.append([e.key, number, e.seq, e.at, _summary(e.payload["record"])])
            return
        # A note or a tag changes the version alone.
        model = self.models.peek(e.key) if e.type in ("annotate", "tag") else self.models.change(e.key)
        if e.type == "challenger":
            model.try_out(number)
            return
        # A rollback is about the version it leaves.
        more = self._change(model, e.payload["expected"] if e.type == "rollback" else number)
        if e.type == "annotate":
            more.setdefault("notes", []).append(e.seq)
            if e.payload["kind"] == "evaluation" and (metrics := _headline(e.payload["note"])):
                more["metrics"] = metrics
        elif e.type == "promote":
            model.crown(number)
            more["promoted"] = e.at
            _crowned_by(more, e.payload["by"])
        elif e.type == "rollback":
            model.step_back(number)
            more.setdefault("notes", []).append(e.seq)
            again = self._change(model, number)
            again["promoted"] = e.at
            if e.payload["by"] is not None:
                _crowned_by(again, e.payload["by"])
        elif e.type == "rollout":
            model.roll(e.seq, e.payload)
            more.setdefault("notes", []).append(e.seq)
        elif e.type == "retire":
            model.retire(number)
            more.setdefault("notes", []).append(e.seq)
            more["retired"] = e.at
        elif e.payload["value"] is None:
            more.get("tags", {}).pop(e.payload["name"], None)
        else:
            more.setdefault("tags", {})[e.payload["name"]] = e.payload["value"]

    def _change(self, model: Model, number: int) -> dict[str, Any]:
        place = model.places[number - 1]
        more: dict[str, Any] = self._versions[place][4]
        self._versions.touch(place)
        return more

    # --- checkpoints -----------------------------------------------------------------------------

    def save(self, *, mend: bool = False) -> str:
        """Store a checkpoint and return its digest."""
        root = {
            "format": _FORMAT,
            "log": self._prefix,
            "seq": self.seq,
            "checksum": self.checksum,
            "at": self.at,
            "action": self.action,
            "models": {"rows": len(self.models), "pages": self.models.save(mend=mend)},
            "versions": {"rows": len(self._versions), "pages": self._versions.save(mend=mend)},
            "entries": {"rows": len(self._entries), "pages": self._entries.save(mend=mend)},
        }
        digest = put_json(self._store, root, packed=True)
        self.weight = 0
        return digest

    def restore(self, digest: str, seq: int, checksum: str) -> None:
        """Become what a checkpoint says.

        :raises UnusablePage: when it cannot be read, or stands for something else.
        """
        try:
            root = get_json(self._store, digest)
            if [root[k] for k in ("format", "log", "seq", "checksum")] != [_FORMAT, self._prefix, seq, checksum]:
                raise ValueError("it stands for something else")
            models = Models(self._store, root["models"]["pages"])
            versions, entries = (
                Pages(self._store, root[table]["pages"], root[table]["rows"]) for table in ("versions", "entries")
            )
            if len(models) != root["models"]["rows"]:
                raise ValueError("its models are not all there")
            at, action = root["at"], root["action"]
        except (ObjectNotFound, CorruptObject, ValueError, TypeError, KeyError) as e:
            raise UnusablePage(f"the checkpoint {digest} cannot be used: {e}") from e
        self.clear()
        self.seq, self.checksum, self.at, self.action = seq, checksum, at, action
        self.models, self._versions, self._entries = models, versions, entries
        self._all_ops = False


def _crowned_by(more: dict[str, Any], by: str | None) -> None:
    """Note who made a version the champion; nobody where gates alone did."""
    more.pop("by", None)
    if by is not None:
        more["by"] = by


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    """What listings show of a record."""
    model, metrics = record.get("model"), _headline(record)
    digest = model.get("digest") if isinstance(model, dict) else None
    return ({"model": digest} if digest else {}) | ({"metrics": metrics} if metrics else {})


def _headline(body: dict[str, Any]) -> dict[str, float]:
    """The first metrics of a record or of an evaluation, by name."""
    metrics = body.get("metrics")
    found: dict[str, float] = {}
    for name, value in metrics.items() if isinstance(metrics, dict) else ():
        number = value.get("candidate") if isinstance(value, dict) else value
        if isinstance(number, (int, float)) and not isinstance(number, bool) and len(found) < _METRICS:
            found[name] = number
    return found
