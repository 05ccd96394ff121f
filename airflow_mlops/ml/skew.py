"""Feature skew: is what the model was given when it served what its training code makes of the same rows?

Row by row, joined by id. Distributions may agree while every row is wrong, and a unit that changed for a few rows
moves no distribution; so this is no drift check. A value differs beyond a relative tolerance; numbers, texts and
missing values are compared as the model reads them.

A feature is skewed when more than ``max_share`` of its rows differ, and the rows show it: by the exact binomial test
of that share, one-sided at 5 % over all features together (Bonferroni). Where no feature differs in more than that
share of rows, a check raises a false alarm with a chance of at most 5 %. The rows are a sample drawn by a hash of
their id; a few rows that came late or were corrected since are no alarm.

References: Polyzotis et al. (2017), "Data management challenges in production machine learning", SIGMOD (feature
skew by joining served with training examples); Clopper & Pearson (1934), *Biometrika* 26, 404-413.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import beta, binom

from airflow_mlops.config.models import Skew
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.joining import last_of_each, same_keys

ALPHA = 0.05
MIN_ROWS = 30
"""With fewer rows no skew is no answer."""

_NAMED = 5
_EXAMPLES = 5
# How alike ratios (their distance from one) or differences must be to be told as one: 90 % within a thousandth.
_ALIKE, _WITHIN = 0.9, 1e-3

Verdict = Literal["skew", "no_skew", "not_enough_data"]


@dataclass(frozen=True)
class ColumnSkew:
    """What was found in one feature.

    :param rows: compared; ``differ``: of these, how many differ; ``share``: ``differ / rows``.
    :param p_value: of the exact test that at most ``max_share`` of all rows differ; uncorrected.
    :param ratio: served by replayed, where it is the same in all rows that differ; ``shift``: the difference, likewise.
    :param lost: missing when served and not in the replay; ``gained``: the other way round.
    :param examples: a few rows that differ: id, served, replayed.
    """

    name: str
    kind: str
    rows: int
    differ: int
    share: float
    p_value: float
    skewed: bool
    ratio: float | None
    shift: float | None
    lost: int
    gained: int
    sentence: str
    examples: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all numbers finite."""
        return asdict(self) | {"examples": [*self.examples]}


@dataclass(frozen=True)
class SkewReport:
    """The decision over all features.

    :param rows: served rows that were compared; ``unmatched``: those for which there was no row to replay;
        ``unserved``: rows to replay that were not served.
    :param duplicates: rows left out because a later one has the same id: of served rows, and of replayed ones.
    :param unchecked: features that were not captured.
    """

    verdict: Verdict
    sentence: str
    columns: tuple[ColumnSkew, ...]
    rows: int
    unmatched: int
    unserved: int = 0
    duplicates: tuple[int, int] = (0, 0)
    unchecked: tuple[str, ...] = ()

    @property
    def skewed(self) -> tuple[ColumnSkew, ...]:
        """The features that are skewed, the largest share first."""
        return tuple(sorted((c for c in self.columns if c.skewed), key=lambda c: -c.share))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all numbers finite."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "columns": [c.to_dict() for c in self.columns],
            "rows": self.rows,
            "unmatched": self.unmatched,
            "unserved": self.unserved,
            "duplicates": [*self.duplicates],
            "unchecked": [*self.unchecked],
        }


def check_skew(
    served: pd.DataFrame,
    replayed: pd.DataFrame,
    kinds: Mapping[str, str],
    config: Skew,
    *,
    served_ids: pd.Series,
    replayed_ids: pd.Series,
) -> SkewReport:
    """Compare features as served with the same rows' features as the training code makes them.

    Both frames hold features as :meth:`~airflow_mlops.ml.features.FeatureSchema.check` gives them: numbers and
    booleans as float64, categories as text. Of rows with one id the last counts.

    :param served: rows × features that the model was given; ``served_ids`` names its rows.
    :param replayed: rows × features, made anew; ``replayed_ids`` names its rows.
    :param kinds: feature → ``number``, ``category`` or ``boolean``. Features that ``served`` lacks were not
        captured: they are named in ``unchecked``.
    :raises DataError: ``replayed`` lacks a feature.
    """
    if absent := [n for n in kinds if n not in replayed.columns]:
        raise DataError(
            f"the replay gave no {', '.join(absent)}", hint="the feature code must make every feature the model reads"
        )
    left, right = same_keys(served_ids, replayed_ids)
    given, twice = last_of_each(served[left.notna()], left[left.notna()])
    made, again = last_of_each(replayed[right.notna()], right[right.notna()])
    ids = given.index.intersection(made.index, sort=False)
    names = [n for n in kinds if n in served.columns]
    limit = ALPHA / max(len(names), 1)
    columns = tuple(_column(n, kinds[n], given.loc[ids, n], made.loc[ids, n], config, limit) for n in names if len(ids))
    counts = (len(ids), len(given) - len(ids), len(made) - len(ids))
    verdict, sentence = _judge(columns, *counts, limit)
    unchecked = tuple(n for n in kinds if n not in names)
    if unchecked:
        sentence += f"; not captured, so not checked: {', '.join(unchecked)}"
    return SkewReport(verdict, sentence, columns, *counts, (twice, again), unchecked)


def _judge(
    columns: tuple[ColumnSkew, ...], rows: int, unmatched: int, unserved: int, limit: float
) -> tuple[Verdict, str]:
    skewed = sorted((c for c in columns if c.skewed), key=lambda c: -c.share)
    missed = f"; {unmatched:,} more served rows have no row to replay" if unmatched else ""
    missed += f"; {unserved:,} rows to replay were not served" if unserved else ""
    if skewed:
        parts = [c.sentence for c in skewed[:_NAMED]]
        more = f" and {len(skewed) - _NAMED} more" if len(skewed) > _NAMED else ""
        head = f"feature skew in {len(skewed)} of {len(columns)} features: "
        return "skew", f"{head}{'; '.join(parts)}{more}{missed}"
    if rows < MIN_ROWS:
        return (
            "not_enough_data",
            f"not enough data: {rows:,} served rows could be replayed, {MIN_ROWS} are needed{missed}",
        )
    worst = max(columns, key=lambda c: c.share)
    sure = _at_most(worst.differ, rows, limit)
    found = f"all {rows:,} rows agree in all"
    if worst.differ:
        found = f"at most {worst.differ:,} of {rows:,} rows differ in any"
    sure_of = f"95 % sure: at most {100 * sure:.2g} % of all rows differ"
    return "no_skew", f"{found} of {len(columns)} features ({sure_of}){missed}"


def _at_most(differ: int, rows: int, alpha: float) -> float:
    """Upper bound of the share of all rows that differ (Clopper & Pearson)."""
    return 1.0 if differ == rows else float(beta.ppf(1 - alpha, differ + 1, rows - differ))


def _column(name: str, kind: str, served: pd.Series, made: pd.Series, config: Skew, limit: float) -> ColumnSkew:
    missing = served.isna().to_numpy(), made.isna().to_numpy()
    both = ~(missing[0] | missing[1])
    differs = missing[0] != missing[1]
    ratio = shift = None
    if kind == "category":
        differs[both] = served.to_numpy(dtype=object)[both] != made.to_numpy(dtype=object)[both]
        told = _commonest(served[differs & both], made[differs & both])
    else:
        a, b = (side.to_numpy(dtype=float, na_value=np.nan) for side in (served, made))
        differs[both] = ~_near(a[both], b[both], config.tolerance)
        told, ratio, shift = _relation(a[differs & both], b[differs & both])
    rows, differ = len(differs), int(differs.sum())
    lost, gained = int((missing[0] & ~missing[1]).sum()), int((missing[1] & ~missing[0]).sum())
    p_value = float(binom.sf(differ - 1, rows, config.max_share)) if differ else 1.0
    texts = [told] if told else []
    texts += [f"{lost:,} missing when served"] if lost else []
    texts += [f"{gained:,} missing in the replay"] if gained else []
    share = differ / rows
    sentence = f"{name}: {_percent(share)} of {rows:,} rows differ" + "".join(f", {t}" for t in texts)
    shown = np.flatnonzero(differs)[:_EXAMPLES]
    examples = tuple(
        {"id": str(served.index[i]), "served": _shown(served.iloc[i]), "replayed": _shown(made.iloc[i])} for i in shown
    )
    return ColumnSkew(
        name, kind, rows, differ, share, p_value, bool(differ) and p_value <= limit, ratio, shift, lost, gained,
        sentence, examples,
    )  # fmt: skip


def _near(a: np.ndarray, b: np.ndarray, tolerance: float) -> np.ndarray:
    """Whether finite numbers are the same but for rounding, relative to themselves or to what is usual there.

    A value near zero is often a difference of larger ones: half the median size of the column counts as well.
    """
    if not len(a):
        return np.ones(0, dtype=bool)
    size = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.median(np.abs(b)) / 2)
    return np.asarray(np.abs(a - b) <= tolerance * size)


def _relation(a: np.ndarray, b: np.ndarray) -> tuple[str, float | None, float | None]:
    """How served numbers ``a`` relate to replayed ones ``b``: one ratio, one shift, or only a usual size."""
    if not len(a):
        return "", None, None
    known = (b != 0) & (a != 0)
    if known.mean() >= _ALIKE:
        ratio = _common(a[known] / b[known] - 1)
        if ratio is not None:
            return f"ratio {1 + ratio:.6g}", 1 + ratio, None
    shift = _common(a - b)
    if shift is not None:
        return f"shifted by {shift:.6g}", None, shift
    return f"usually by {float(np.median(np.abs(a - b))):.4g}", None, None


def _common(values: np.ndarray) -> float | None:
    """The value that nine of ten are, to a thousandth of itself."""
    middle = float(np.median(values))
    alike = np.abs(values - middle) <= _WITHIN * abs(middle)
    return middle if math.isfinite(middle) and middle != 0 and alike.mean() >= _ALIKE else None


def _commonest(served: pd.Series, made: pd.Series) -> str:
    if served.empty:
        return ""
    counts = pd.DataFrame({"was": made.to_numpy(), "became": served.to_numpy()}).value_counts()
    was, became = counts.index[0]
    return f"{_quoted(was)} became {_quoted(became)} in {int(counts.iloc[0]):,}"


def _quoted(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _shown(value: Any) -> Any:
    """A value of an example as plain JSON; a missing one is None."""
    if pd.isna(value):
        return None
    return float(value) if isinstance(value, float | np.floating) else str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
