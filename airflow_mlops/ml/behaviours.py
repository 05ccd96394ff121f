"""Ask a model for what a file of recorded behaviour expects of it; see :mod:`airflow_mlops.config.behaviours`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.behaviours import (
    Behaviours,
    Case,
    Direction,
    Invariance,
    Output,
    Row,
    files_of,
    missing_columns,
    read_behaviours,
    unknown_columns,
)
from airflow_mlops.config.models import Gate
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.gate_result import GateResult, gate_dict, number
from airflow_mlops.ml.privacy import cause

MOST_ROWS = 200
"""Holdout rows that an invariance or direction is tried on."""
_SHOWN = 3
_ROUNDING = 1e-9
"""Two predictions that are this close, relative to their size, are the same number."""

Ask = Callable[[pd.DataFrame], dict[str, np.ndarray]]
"""From raw rows to columns of shape (n,): ``label`` (class code or number) and, where there are, ``proba_<code>``."""


@dataclass(frozen=True)
class Outcome:
    """How one recorded behaviour came out; ``told`` is one sentence with an example, and quotes nothing private.

    :param share: of ``rows`` rows, those that behave as recorded.
    """

    kind: str
    name: str
    line: int
    passed: bool
    rows: int
    share: float
    told: str


def read_all(gates: Sequence[Gate], folder: Path | None) -> list[Behaviours]:
    """Read the files that gates name, beside the pipeline file.

    :raises InvalidPipeline: a file that is not there, or with errors, each with its place.
    """
    return [read_behaviours(folder or Path(), name) for name in files_of(gates)]


def check_behaviours(
    found: Behaviours,
    ask: Ask,
    holdout: pd.DataFrame,
    *,
    classes: Sequence[Any] | None,
    needed: Collection[str],
    private: Collection[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Try every recorded behaviour on the model; returns ``{"file", "digest", "cases": [Outcome as JSON]}``.

    :param holdout: raw holdout rows, shape (n, columns); rows that a case gives get their dtypes from it.
    :param classes: in the order of their codes, the positive one last; ``None`` for regression.
    :param needed: columns that a given row must have a value for, maybe null.
    :param private: columns of which no value is told.
    :param seed: draws the holdout rows.
    :raises EvaluationError: a column or class that does not exist, a row without a column that the model reads, a value
        that does not fit its column, or a range where the model gives no probabilities.
    """
    checker = _Checker(found, ask, holdout, classes, needed, private, seed)
    for line, name, advice in unknown_columns(found, [str(c) for c in holdout.columns]):
        raise EvaluationError(f"{found.file}, line {line}: the data has no column {name!r}", hint=advice)
    return {"file": found.file, "digest": found.digest, "cases": [asdict(checker.run(case)) for case in found.cases]}


def judge_behaviours(gate: Gate, found: dict[str, Any]) -> GateResult:
    """Pass when the share of behaviours that hold reaches ``at_least`` (default: all)."""
    cases = found["cases"]
    failed = [c for c in cases if not c["passed"]]
    share = (len(cases) - len(failed)) / len(cases)
    least = 1.0 if gate.at_least is None else float(gate.at_least)
    passed = share >= least
    sentence = f"behaviours of {found['file']}: {len(cases) - len(failed)} of {len(cases)} hold"
    if not passed or failed:
        sentence += f", and {number(100 * least)} % must" if not passed else ""
        shown = "; ".join(f"{c['name']} (line {c['line']}): {c['told']}" for c in failed[:_SHOWN])
        more = f"; and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        sentence += f": {shown}{more}"
    return GateResult(
        gate=gate_dict(gate),
        name=f"behaviours {found['file']}",
        verdict="passed" if passed else "rejected",
        sentence=sentence,
        value=share,
        threshold=least,
        behaviours=found | {"cases": failed[:_KEPT], "held": len(cases) - len(failed), "failed": len(failed)},
    )


_KEPT = 50
"""Failed cases that are kept with the verdict."""


class _Checker:
    def __init__(
        self,
        found: Behaviours,
        ask: Ask,
        holdout: pd.DataFrame,
        classes: Sequence[Any] | None,
        needed: Collection[str],
        private: Collection[str],
        seed: int,
    ) -> None:
        self.found, self.ask, self.holdout, self.classes = found, ask, holdout, classes
        self.needed, self.private = needed, private
        self.drawn = holdout.sample(min(MOST_ROWS, len(holdout)), random_state=seed).sort_index()

    def run(self, case: Case) -> Outcome:
        if isinstance(case.case, Output):
            return self._output(case, case.case)
        if isinstance(case.case, Invariance):
            return self._invariance(case, case.case)
        return self._direction(case, case.case)

    # --- the three kinds ---------------------------------------------------------------------------

    def _output(self, case: Case, output: Output) -> Outcome:
        said = self.ask(self._given(case))
        if output.expect is not None:
            if self.classes is None:
                raise self._wrong(case, "`expect` is for classes, and this is regression", "give at_least and at_most")
            wanted, got = self._code(case, output.expect), int(said["label"][0])
            passed = wanted == got
            what = f"expected {output.expect!r}, predicted {self.classes[got]!r}"
        else:
            value = float(self._score(case, said, output.cls)[0])
            low, high = output.at_least, output.at_most
            passed = (low is None or value >= low) and (high is None or value <= high)
            limits = [f"{word} {number(v)}" for word, v in (("at least", low), ("at most", high)) if v is not None]
            what = f"expected {' and '.join(limits)}, predicted {number(value)}"
        return Outcome(case.kind, case.name, case.line, passed, 1, float(passed), what)

    def _invariance(self, case: Case, rule: Invariance) -> Outcome:
        rows, told_row = self._rows(case)
        before = self.ask(rows)
        bad = np.zeros(len(rows), dtype=bool)
        example = ""
        for value in [None] if rule.to is None else rule.to:
            if rule.to is None:
                changed = self._grown(case, rows, rule.change, float(rule.by or 0))
            else:
                changed = rows.assign(**{rule.change: self._typed(case, rule.change, [value] * len(rows), rows.index)})
            after = self.ask(changed)
            moved = self._moved(before, after, rule.within)
            bad |= moved
            if moved.any() and not example:
                i = int(np.argmax(moved))
                example = f"{told_row(i)}: {self._change(rule.change, rows, changed, i)}: "
                example += self._told(before, i) + " → " + self._told(after, i)
        return self._outcome(case, rule.min_share, bad, f"moved by {rule.change}", example)

    def _direction(self, case: Case, rule: Direction) -> Outcome:
        rows, told_row = self._rows(case)
        known = pd.to_numeric(rows[rule.increase], errors="coerce").notna().to_numpy()
        if not known.any():
            raise self._wrong(case, f"no row has a number in {rule.increase!r} to increase", "name a column of numbers")
        kept = np.flatnonzero(known)
        rows = rows.iloc[kept]
        changed = self._grown(case, rows, rule.increase, float(rule.by))
        before, after = (self._score(case, self.ask(f), rule.cls) for f in (rows, changed))
        wrong = before - after if rule.must_not == "fall" else after - before
        bad = wrong > rule.within + _ROUNDING * np.maximum(np.abs(before), np.abs(after))
        example = ""
        if bad.any():
            i = int(np.argmax(wrong))
            what = self._change(rule.increase, rows, changed, i)
            example = f"{told_row(int(kept[i]))}: {what}: {number(float(before[i]), 4)} → {number(float(after[i]), 4)}"
        verb = "falls" if rule.must_not == "fall" else "rises"
        return self._outcome(case, rule.min_share, bad, f"{verb} with {rule.increase}", example)

    def _outcome(self, case: Case, least: float, bad: np.ndarray, what: str, example: str) -> Outcome:
        n, failed = len(bad), int(bad.sum())
        share = (n - failed) / n
        text = f"{what} in {failed:,} of {n:,} rows" + (f"; {example}" if example else "")
        return Outcome(case.kind, case.name, case.line, share >= least, n, share, text)

    # --- rows --------------------------------------------------------------------------------------

    def _rows(self, case: Case) -> tuple[pd.DataFrame, Callable[[int], str]]:
        if self.found.rows(case) is None:
            return self.drawn, lambda i: f"row {int(self.drawn.index[i]) + 1:,} of the snapshot"
        return self._given(case), lambda i: f"row {i + 1} of the case"

    def _given(self, case: Case) -> pd.DataFrame:
        rows: list[Row] = self.found.rows(case) or []
        for row in rows:
            if missing := missing_columns(row, self.needed):
                raise self._wrong(
                    case,
                    f"the row gives no value for {', '.join(missing)}",
                    "give it in the row or in `base`; null is a missing value",
                )
        index = pd.RangeIndex(len(rows))
        columns = {
            str(c): self._typed(case, str(c), [row.get(str(c)) for row in rows], index) for c in self.holdout.columns
        }
        return pd.DataFrame(columns, index=index)

    def _typed(self, case: Case, column: str, values: list[Any], index: pd.Index) -> pd.Series:
        """Values with the dtype that the data has; a column without gaps may get some here."""
        dtype = self.holdout[column].dtype
        plain = pd.Series(values, index=index, dtype=object)
        try:
            if pd.api.types.is_datetime64_any_dtype(dtype):
                return pd.to_datetime(plain).astype(dtype)
            if plain.isna().any() and (pd.api.types.is_integer_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)):
                return plain.astype(float) if pd.api.types.is_integer_dtype(dtype) else plain
            if pd.api.types.is_integer_dtype(dtype) and any(isinstance(v, float) for v in values):
                return plain.astype(float)
            return plain.astype(dtype)
        except (ValueError, TypeError) as e:
            raise self._wrong(
                case, f"a value of {column} does not fit its type, {dtype}", "write it as the data has it"
            ) from cause(e, self.private)

    def _grown(self, case: Case, rows: pd.DataFrame, column: str, by: float) -> pd.DataFrame:
        values = rows[column]
        if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            raise self._wrong(
                case, f"{column!r} holds no numbers that could grow", "name a column of numbers, or use `to`"
            )
        whole = float(by).is_integer() and pd.api.types.is_integer_dtype(values)
        return rows.assign(**{column: values + (int(by) if whole else by)})

    # --- predictions -------------------------------------------------------------------------------

    def _moved(self, before: dict[str, np.ndarray], after: dict[str, np.ndarray], within: float | None) -> np.ndarray:
        """Which rows are predicted differently, shape (n,)."""
        probabilities = [name for name in before if name.startswith("proba_")]
        if within is None and self.classes is not None:
            moved: np.ndarray = before["label"] != after["label"]
            return moved
        if self.classes is not None and not probabilities:
            raise EvaluationError(
                f"{self.found.file}: `within` needs probabilities, and the model gives none",
                hint="leave it out: the predicted class then must stay",
            )
        pairs = [(before[n], after[n]) for n in probabilities] or [(before["label"], after["label"])]
        far = [np.abs(a - b) > (within or 0) + _ROUNDING * np.maximum(np.abs(a), np.abs(b)) for a, b in pairs]
        return np.any(far, axis=0)

    def _score(self, case: Case, said: dict[str, np.ndarray], cls: Any) -> np.ndarray:
        if self.classes is None:
            if cls is not None:
                raise self._wrong(case, "`class` is for classes, and this is regression", "leave it out")
            return said["label"].astype(float)
        if cls is None and len(self.classes) > 2:
            raise self._wrong(case, f"there are {len(self.classes)} classes", "say which one with `class`")
        code = len(self.classes) - 1 if cls is None else self._code(case, cls)
        if f"proba_{code}" not in said:
            raise self._wrong(
                case, "the model gives no probabilities", "use an estimator with predict_proba, or `expect`"
            )
        return said[f"proba_{code}"]

    def _code(self, case: Case, cls: Any) -> int:
        for code, known in enumerate(self.classes or ()):
            if str(known) == str(cls):
                return code
        raise self._wrong(case, f"there is no class {cls!r}", f"the classes are {list(self.classes or ())!r}")

    def _told(self, said: dict[str, np.ndarray], i: int) -> str:
        if self.classes is None:
            return number(float(said["label"][i]), 4)
        code = int(said["label"][i])
        probability = f" ({number(float(said[f'proba_{code}'][i]), 3)})" if f"proba_{code}" in said else ""
        return f"{self.classes[code]!r}{probability}"

    def _change(self, column: str, before: pd.DataFrame, after: pd.DataFrame, i: int) -> str:
        if column in self.private:
            return f"{column} (private)"
        return f"{column} {_short(before[column].iloc[i])} → {_short(after[column].iloc[i])}"

    def _wrong(self, case: Case, what: str, advice: str) -> EvaluationError:
        return EvaluationError(f"{self.found.file}, line {case.line}, {case.name}: {what}", hint=advice)


def _short(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "missing" if np.isnan(value) else number(float(value))
    text = "missing" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
