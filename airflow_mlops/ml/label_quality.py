"""How far labels can be trusted: rows that contradict each other, and a label rate that jumped.

Both only count and compare. That labels are wrong is for people to say: equal rows with different labels may
as well lack the feature that would tell them apart. ``validate.labels`` makes limits of the counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from airflow_mlops.config.models import Data, LabelLimits
from airflow_mlops.ml.expectations import Check
from airflow_mlops.ml.features import classes_of, plain
from airflow_mlops.ml.frames import Frames, frames
from airflow_mlops.ml.hashed import Buckets, firsts, hashed
from airflow_mlops.ml.schema import family
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.store.base import Store

ALPHA = 0.05
"""Probability, over all classes together, that an unchanged rate is said to differ."""
MOST_CLASSES = 20
_FEATURE_KINDS = ("number", "boolean", "text", "empty")


@dataclass(frozen=True)
class ClassRate:
    """One class: its rows and share, and its share in the reference; ``None`` where there is no reference.

    ``p_value``: probability of such a change between samples of one population, corrected for the number of classes.
    """

    label: str
    rows: int
    share: float
    reference: float | None = None
    p_value: float | None = None

    @property
    def change(self) -> float:
        """Change of the share since the reference; 0 where there is none."""
        return 0.0 if self.reference is None else self.share - self.reference

    @property
    def differs(self) -> bool:
        """Whether the rows show that the share is another one."""
        return self.p_value is not None and self.p_value < ALPHA


@dataclass(frozen=True)
class Conflicts:
    """Rows that are equal in every column a model may read, and have different labels.

    :param rows: rows in groups with more than one label. :param groups: how many such groups there are.
    :param floor: rows that any model must get wrong: all but the most frequent label of each group.
    :param example: numbers, from 1, of two rows that contradict each other; ``labels`` are theirs.
    """

    rows: int
    share: float
    groups: int
    floor: int
    example: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelQuality:
    """What is known of the labels of ``rows`` rows.

    :param classes: most frequent first; ``None``: the target is a measure, and nothing but gaps is counted.
    :param reference: what the shares are compared with, in words.
    """

    rows: int
    missing: int
    classes: tuple[ClassRate, ...] | None = None
    conflicts: Conflicts | None = None
    reference: str | None = None

    @property
    def jump(self) -> ClassRate | None:
        """The class whose share changed most since the reference."""
        if self.classes is None or self.reference is None:
            return None
        return max(self.classes, key=lambda c: abs(c.change), default=None)

    @property
    def sentence(self) -> str:
        """One line for logs."""
        return f"labels: {self.summary}"

    @property
    def summary(self) -> str:
        """What was counted, in a few words."""
        if self.classes is None or self.conflicts is None:
            return f"{self.rows:,} rows, {self.missing:,} without; a measure, so no classes are compared"
        parts = [f"{len(self.classes):,} classes in {self.rows:,} rows, {self.missing:,} without"]
        c = self.conflicts
        parts.append(f"{c.rows:,} rows ({100 * c.share:.3g} %) contradict others" if c.rows else "none contradict")
        if self.jump is not None:
            parts.append(f"most changed since {self.reference}: label {_changed(self.jump)}")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, fit for XCom: at most 20 classes."""
        shown = asdict(self) | {"sentence": self.sentence}
        if self.classes is not None:
            shown["classes"] = shown["classes"][:MOST_CLASSES]
        return shown


def label_quality(
    snapshot: Snapshot,
    store: Store,
    data: Data,
    *,
    reference: Sequence[Mapping[str, Any]] | None = None,
    of: str = "the champion's training rows",
) -> LabelQuality:
    """Count missing and contradicting labels, and compare the shares of classes with a reference.

    Two rows are equal when they are in every column that a model may read as it is: not the id, the timestamp, the
    group of the split, excluded columns, times, and private text. Feature code has not run here; what it would make
    of times is not seen. Rows are compared by 128 bits of a hash and read in batches: memory does not grow with them.

    Each share is compared by Fisher's exact test (Fisher 1935, *Journal of the Royal Statistical Society* 98, 39-82),
    which keeps its level whatever the sizes, with Bonferroni's correction over classes. Rows that are in both samples
    make the test more careful, rows that depend on each other less so.

    :param reference: rows by class, ``[{"class", "rows"}]``, as a version's record has them under ``seen``.
    :param of: the reference in words.
    """
    if data.target not in snapshot.columns:
        return LabelQuality(snapshot.rows, snapshot.rows)
    with frames(snapshot, store) as read:
        missing, counts = _counted(read, data)
        if counts is None:
            return LabelQuality(snapshot.rows, missing)
        names = [_text(v) for v in counts.index]
        columns = _comparable(snapshot, data)
        # Rows that are equal in all columns are so in the numbers, which are compared much sooner than texts.
        numbers = [c for c in columns if family(snapshot.columns[c]) == "number"]
        conflicts = _conflicts(read, numbers, data.target, counts.index, names)
        if len(columns) > len(numbers) and (conflicts.rows or not numbers):
            conflicts = _conflicts(read, columns, data.target, counts.index, names)
    rows = dict(zip(names, map(int, counts), strict=True))
    before = None if reference is None else {_text(c["class"]): int(c["rows"]) for c in reference}
    if not before or not sum(before.values()) or not sum(rows.values()):
        before = None
    return LabelQuality(snapshot.rows, missing, _rates(rows, before), conflicts, None if before is None else of)


def label_checks(found: LabelQuality, limits: LabelLimits, target: str) -> list[Check]:
    """Judge ``found`` by ``validate.labels``; a limit that is not set makes no check."""
    checks = []
    if limits.max_conflicts is not None:
        c = found.conflicts
        example = f"rows {c.example[0]} and {c.example[1]}: {c.labels[0]}, {c.labels[1]}" if c and c.rows else ""
        checks.append(
            Check(
                "equal rows have equal labels",
                target,
                c is not None and c.share <= limits.max_conflicts,
                arguments=f"max_conflicts={limits.max_conflicts:g}",
                unexpected_count=c.rows if c else None,
                unexpected_percent=100 * c.share if c else None,
                examples=(example,) if example else (),
                observed="" if c else _MEASURE,
            )
        )
    if limits.max_rate_change is not None:
        jump = found.jump
        jumped = jump is not None and abs(jump.change) > limits.max_rate_change and jump.differs
        observed = _MEASURE if found.classes is None else "no champion to compare with"
        checks.append(
            Check(
                "the label rate has not jumped",
                target,
                found.classes is not None and not jumped,
                arguments=f"max_rate_change={limits.max_rate_change:g}",
                observed=observed if jump is None else _changed(jump),
            )
        )
    return checks


_MEASURE = "the target is a measure: this is for classes"


def _changed(rate: ClassRate) -> str:
    if rate.reference is None:
        return f"{rate.label}: {100 * rate.share:.3g} %"
    chance = "" if rate.differs else ", which may be chance"
    return f"{rate.label}: {100 * rate.reference:.3g} % → {100 * rate.share:.3g} %{chance}"


def _text(value: Any) -> str:
    """A label as text; 1.0 and 1 are the same."""
    return str(plain(value))


def _comparable(snapshot: Snapshot, data: Data) -> list[str]:
    """Columns that tell rows apart, numbers first: they do so soonest."""
    roles = {data.target, data.id, data.timestamp, data.split.column, *data.exclude}
    kinds = {
        name: kind
        for name, arrow_type in snapshot.columns.items()
        if name not in roles
        and (kind := family(arrow_type)) in _FEATURE_KINDS
        and not (kind == "text" and name in data.private)
    }
    return sorted(kinds, key=lambda name: _FEATURE_KINDS.index(kinds[name]))


def _counted(read: Frames, data: Data) -> tuple[int, pd.Series | None]:
    """How many labels are missing, and the rows of each; ``None``: a measure."""
    missing, counts, measure = 0, pd.Series(dtype="int64"), False
    for batch in read.batches([data.target]):
        labels = batch[data.target]
        missing += int(labels.isna().sum())
        if measure:
            continue
        found = labels.value_counts(sort=False)
        counts = found if not len(counts) else counts.add(found, fill_value=0).astype("int64")
        measure = classes_of(counts.index.to_series(), data) is None
    return missing, None if measure else counts


def _conflicts(read: Frames, columns: Sequence[str], target: str, labels: pd.Index, names: Sequence[str]) -> Conflicts:
    """Group equal rows and look for groups with more than one label.

    :param labels: that there are; ``names`` is their text.
    """
    n, none = read.snapshot.rows, Conflicts(0, 0.0, 0, 0)
    if not columns or n < 2:
        return none
    rows = groups = floor = 0
    example: tuple[int, ...] = ()
    with Buckets(n, {"label": "i4", "row": "i8", "count": "i8"}) as buckets:
        for batch in read.batches([*columns, target]):
            codes = labels.get_indexer(pd.Index(batch[target]))
            known = codes >= 0
            buckets.add(hashed(batch.loc[known, [*columns]]), "label", label=codes[known], row=batch.index[known])
        for records in buckets.sorted("label"):
            pairs = firsts(records, "label")
            counts, first = np.add.reduceat(records["count"], pairs), np.minimum.reduceat(records["row"], pairs)
            starts = np.searchsorted(pairs, firsts(records))  # of the groups among the pairs of group and label
            kinds = np.diff(np.append(starts, len(pairs)))
            bad = np.flatnonzero(kinds > 1)
            if not len(bad):
                continue
            sizes, most = np.add.reduceat(counts, starts), np.maximum.reduceat(counts, starts)
            rows, groups = rows + int(sizes[bad].sum()), groups + len(bad)
            floor += int((sizes - most)[bad].sum())
            at = bad[np.minimum.reduceat(first, starts)[bad].argmin()]
            pair = starts[at] + np.argsort(first[starts[at] : starts[at] + kinds[at]])[:2]
            found = (*map(int, first[pair]), *map(int, records["label"][pairs[pair]]))
            example = min(example, found) if example else found
    if not groups:
        return none
    one, two, label, against = example
    return Conflicts(rows, rows / n, groups, floor, (one + 1, two + 1), (names[label], names[against]))


def _rates(rows: dict[str, int], before: dict[str, int] | None) -> tuple[ClassRate, ...]:
    total = sum(rows.values())
    names = sorted({*rows, *(before or {})}, key=lambda c: (-rows.get(c, 0), c))
    if before is None:
        return tuple(ClassRate(c, rows[c], rows[c] / total) for c in names)
    # Of two classes one share is the other's rest: one comparison.
    comparisons = max(len(names) - 1, 1) if len(names) <= 2 else len(names)
    was = sum(before.values())
    rates = []
    for c in names:
        a, b = rows.get(c, 0), before.get(c, 0)
        p_value = float(fisher_exact([[a, total - a], [b, was - b]]).pvalue)
        rates.append(ClassRate(c, a, a / total, b / was, min(p_value * comparisons, 1.0)))
    return tuple(rates)
