"""Which keys of a fleet break an expectation about rows, each judged by its own rows as if it had a pipeline alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Fleet
from airflow_mlops.ml import expectations_parts as gx_parts
from airflow_mlops.ml.expectations import Check, Expectation, build, without_zones
from airflow_mlops.ml.fleet.keys import key_of
from airflow_mlops.ml.fleet.partition import present
from airflow_mlops.ml.frames import Frames, frames
from airflow_mlops.ml.schema import family
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.ml.target import unusable
from airflow_mlops.store.base import Store

_COUNTS_NULLS = {"expect_column_values_to_be_null", "expect_column_values_to_not_be_null"}
_MOST_REASONS = 3
BY = "validation: "
"""What a reason begins with: in a table of results it stands among those of training and gates."""


@dataclass(frozen=True)
class Broken:
    """Keys whose rows are not fit for use.

    :param keys: why, by key.
    :param rows: places in the snapshot of all rows of these keys, and of those without a key, ascending.
    :param unplaced: checks that failed and of which no key is at fault: those of a whole column.
    :param of: how many keys there are.
    :param keyless: how many rows have no key.
    """

    keys: dict[str, str] = field(default_factory=dict)
    rows: np.ndarray = field(default_factory=lambda: np.array([], np.int64))
    unplaced: tuple[Check, ...] = ()
    of: int = 0
    keyless: int = 0

    @property
    def sentence(self) -> str:
        """``by its own rows 1 of 59 keys fails and is set aside (R04) with 82 rows``; empty where all are fit."""
        parts = []
        if self.keys:
            named = ", ".join([*self.keys][:_MOST_REASONS]) + (", …" if len(self.keys) > _MOST_REASONS else "")
            rows = len(self.rows) - self.keyless
            own, fail = ("its", "fails and is") if len(self.keys) == 1 else ("their", "fail and are")
            count = f"{len(self.keys):,} of {self.of:,} keys {fail} set aside"
            parts.append(f"by {own} own rows {count} ({named}) with {rows:,} rows")
        if self.keyless:
            parts.append(f"{self.keyless:,} rows without a key set aside")
        return ", ".join(parts)


def broken_keys(
    snapshot: Snapshot,
    store: Store,
    fleet: Fleet,
    checked: Sequence[tuple[Check, Expectation | None]],
    *,
    keyless: np.ndarray | None = None,
) -> Broken:
    """Find the keys that break one of some checks.

    A key breaks an expectation where fewer than ``mostly`` of its own rows are as expected; whether all rows together
    pass says nothing of it.

    :param checked: checks with their expectations; ``None``: the check's column is the target.
    :param keyless: what :func:`rows_without_key` found, where such rows are not fit for use either.
    """
    keyless = np.array([], np.int64) if keyless is None else keyless
    seen = [(check, e) for check, e in checked if not check.success or (check.row_level and check.unexpected_count)]
    if not seen:
        return Broken(rows=keyless, keyless=len(keyless))
    codes, names = _codes(snapshot, store, fleet)
    rows = np.bincount(codes[codes >= 0], minlength=len(names))
    reasons: dict[int, list[str]] = {}
    unplaced = []
    with frames(snapshot, store) as read:
        placed = [e for _, e in seen if e is not None and gx_parts.by_rows(e)]
        repeats = [e for _, e in seen if e is not None and gx_parts.asks_what_repeats(e)]
        found = gx_parts.failing_rows([*placed, *(_within_keys(e, snapshot, fleet) for e in repeats)], read)
        for check, expectation in seen:
            if expectation is None:
                places = _unlabelled(snapshot, store, check.column)
            else:
                places = found.get(expectation.number)
            if places is None:
                unplaced += [check] if not check.success else []
                continue
            of_rows = codes[places]
            bad = np.bincount(of_rows[of_rows >= 0], minlength=len(names))
            mostly = 1.0 if expectation is None else float(getattr(expectation.built, "mostly", 1))
            broken = bad > 0
            if expectation is not None and mostly < 1:
                counted = _counted(expectation, read, codes, len(names))
                # As Great Expectations has it: the share of good rows, of those that count, is at least `mostly`.
                broken &= (counted - bad) / np.maximum(counted, 1) < mostly
            for code in np.flatnonzero(broken):
                where = f" on {check.column}" if check.column else ""
                told = f"{bad[code]:,} of {rows[code]:,} rows fail {check.expectation}{where}"
                reasons.setdefault(int(code), []).append(told)
    bad_codes = np.isin(codes, np.fromiter(reasons, np.int64, len(reasons)))
    return Broken(
        {names[code]: _joined(told) for code, told in sorted(reasons.items())},
        np.union1d(np.flatnonzero(bad_codes), keyless),
        tuple(unplaced),
        len(names),
        len(keyless),
    )


def _within_keys(expectation: Expectation, snapshot: Snapshot, fleet: Fleet) -> Expectation:
    """What asks that something is there once, asked of each key: once among its rows."""
    given = dict(expectation.arguments)
    alone = "column" in given
    columns = [given.pop("column")] if alone else given.pop("column_list")
    if alone:
        given["ignore_row_if"] = "any_value_is_missing"
    given["column_list"] = list(dict.fromkeys([*columns, *fleet.columns]))
    families = {name: family(kind) for name, kind in snapshot.columns.items()}
    (asked,) = build([{"expect_compound_columns_to_be_unique": given}], families)
    # Its own would count from 1.
    asked.built.meta["number"] = expectation.number
    return replace(asked, number=expectation.number)


def _joined(told: Sequence[str]) -> str:
    more = f"; and {len(told) - _MOST_REASONS} more" if len(told) > _MOST_REASONS else ""
    return BY + "; ".join(told[:_MOST_REASONS]) + more


def rows_without_key(snapshot: Snapshot, store: Store, fleet: Fleet) -> np.ndarray:
    """Places of the rows without a value in a column of the key, ascending."""
    columns = present(snapshot.columns, fleet.columns, fleet)
    masks = [~_has_key(batch.to_pandas()) for batch in snapshot.batches(store, columns)]
    return np.flatnonzero(np.concatenate(masks)) if masks else np.array([], np.int64)


def _has_key(frame: pd.DataFrame) -> np.ndarray:
    has: np.ndarray = (frame.notna() & (frame != "")).all(axis=1).to_numpy()
    return has


def _codes(snapshot: Snapshot, store: Store, fleet: Fleet) -> tuple[np.ndarray, list[str]]:
    """The number of each row's key, shape (rows,), −1 where it has none; and the keys by number."""
    known: dict[str, int] = {}
    codes = np.full(snapshot.rows, -1, dtype=np.int64)
    first = 0
    for batch in snapshot.batches(store, present(snapshot.columns, fleet.columns, fleet)):
        frame = batch.to_pandas()
        has = _has_key(frame)
        if has.any():
            of_batch, values = pd.factorize(key_of(frame[has], fleet.columns))
            numbers = np.array([known.setdefault(v, len(known)) for v in values], dtype=np.int64)
            codes[first : first + len(frame)][has] = numbers[of_batch]
        first += len(frame)
    return codes, [*known]


def _unlabelled(snapshot: Snapshot, store: Store, target: str) -> np.ndarray | None:
    """Places of the rows without a usable target; ``None`` where the data does not have it."""
    if target not in snapshot.columns:
        return None
    batches = snapshot.batches(store, [target])
    return np.flatnonzero(np.concatenate([unusable(b.column(0)).to_numpy(False) for b in batches]))


def _counted(expectation: Expectation, read: Frames, codes: np.ndarray, keys: int) -> np.ndarray:
    """How many rows of each key an expectation looks at: neither those its condition leaves out, nor missing ones."""
    condition = expectation.arguments.get("row_condition")
    counts = np.zeros(keys, dtype=np.int64)
    kept = _kept(expectation)
    for frame in read.batches(tuple(dict.fromkeys(expectation.columns))):
        looked_at = without_zones(frame)
        if condition:
            looked_at = looked_at.query(condition, parser="pandas")
        of_rows = codes[kept(looked_at).index]
        counts += np.bincount(of_rows[of_rows >= 0], minlength=keys)
    return counts


def _kept(expectation: Expectation) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Leave out the rows whose missing values Great Expectations does not count."""
    arguments = expectation.arguments
    if "column" in arguments:
        if expectation.name in _COUNTS_NULLS:
            return lambda frame: frame
        return lambda frame: frame.dropna(subset=[arguments["column"]])
    columns = arguments.get("column_list") or [arguments["column_A"], arguments["column_B"]]
    ignored = str(getattr(expectation.built.ignore_row_if, "value", expectation.built.ignore_row_if))
    if ignored in ("both_values_are_missing", "all_values_are_missing"):
        return lambda frame: frame.dropna(subset=columns, how="all")
    if ignored in ("either_value_is_missing", "any_value_is_missing"):
        return lambda frame: frame.dropna(subset=columns, how="any")
    return lambda frame: frame
