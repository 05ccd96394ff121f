"""The plan of one training of a fleet: which keys are trained by which shard, on which rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow_mlops.exceptions import DataError
from airflow_mlops.store import get_json, put_json
from airflow_mlops.store.base import Store


@dataclass(frozen=True)
class Shard:
    """Some keys and their rows, ordered by key.

    :param rows: digest of a Parquet file.
    :param counts: rows by key, in the order of the file.
    """

    rows: str
    counts: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """What a training run of a fleet does; immutable, named by its digest.

    :param of: digest of what all its versions have in common.
    :param fallback: keys with too few rows: their number of rows, and the key of the parent that serves; their own,
        where they have a champion from before.
    :param absent: keys that have a model and no row in this run: in how many runs in a row, this one included.
    :param not_due: keys with rows that need no training now.
    :param broken: keys whose rows validation set aside, and why.
    :param partial: whether it was asked for some keys only.
    :param wear: the run's place among the decisions on its holdout, :class:`airflow_mlops.ml.wear.Wear` as a dict;
        ``None`` without gates.
    """

    pipeline: str
    of: str
    shards: tuple[Shard, ...]
    fallback: dict[str, tuple[int, str]]
    absent: dict[str, int]
    not_due: tuple[str, ...]
    broken: dict[str, str]
    wear: dict[str, Any] | None
    partial: bool = False
    digest: str = ""

    @property
    def keys(self) -> int:
        """How many keys are trained, parents included."""
        return sum(len(s.counts) for s in self.shards)

    def save(self, store: Store) -> Plan:
        """Put the plan into the store; the result knows its digest."""
        body = asdict(self)
        del body["digest"]
        # Pairs: canonical JSON sorts the keys of objects, and the rows of a shard have an order.
        body["shards"] = [{"rows": s.rows, "counts": [*s.counts.items()]} for s in self.shards]
        return Plan(**vars(self) | {"digest": put_json(store, {"kind": "fleet plan", "format": 1, **body})})

    @classmethod
    def load(cls, store: Store, digest: str) -> Plan:
        """Read a plan.

        :raises DataError: the digest names something else.
        """
        body = get_json(store, digest)
        if not isinstance(body, dict) or body.get("kind") != "fleet plan":
            raise DataError(f"{digest} is no plan of a fleet", hint="pass on what fleet.partition returned")
        return cls(
            body["pipeline"],
            body["of"],
            tuple(Shard(s["rows"], dict(s["counts"])) for s in body["shards"]),
            {key: (rows, parent) for key, (rows, parent) in body["fallback"].items()},
            body["absent"],
            tuple(body["not_due"]),
            body.get("broken", {}),  # a run may be under way while the package is exchanged
            body["wear"],
            body.get("partial", bool(body["not_due"])),
            digest,
        )

    def label(self, number: int) -> str:
        """What a shard is called in Airflow's grid."""
        keys = [*self.shards[number].counts]
        span = keys[0] if len(keys) == 1 else f"{_short(keys[0])} … {_short(keys[-1])} ({len(keys):,} keys)"
        return f"{number} {span}"


def broken_of(store: Store, snapshot_ref: Mapping[str, Any]) -> dict[str, str]:
    """Why, by key, validation set rows aside, of the reference that it returned; empty where it did not."""
    found = (snapshot_ref.get("validation") or {}).get("broken_keys")
    return dict(get_json(store, found["why"])["keys"]) if found else {}


def _short(key: str, most: int = 24) -> str:
    return key if len(key) <= most else key[: most - 1] + "…"
