"""Files of recorded behaviour: what a model must say, must not be moved by, and which way it must go.

Three kinds, those of CheckList (Ribeiro, Wu, Guestrin & Singh 2020, "Beyond accuracy: behavioral testing of NLP models
with CheckList", *ACL*, 4902-4912): outputs are its minimum functionality tests, invariances and directions keep their
names. A file is YAML (``*.behaviours.yaml``, so that nobody takes it for a pipeline), JSON, or a CSV table of outputs.
It is data: nothing in it is run.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from airflow_mlops.config.issues import InvalidPipeline
from airflow_mlops.config.text import read_text
from airflow_mlops.config.types import Column, Number, refuse
from airflow_mlops.config.yaml_source import Place, Source, Text, parse, plain_scalar

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr | None
Row = dict[Column, Scalar]
Kind = Literal["output", "invariance", "direction"]

_LABELS = ("name", "expect", "class", "at_least", "at_most")
_SHOWN = 12


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class _Case(_Model):
    name: StrictStr | None = Field(None, description="What reports call it.")


class Output(_Case):
    """What the model must say of one row: a class, or a range of a probability or number."""

    row: Row = Field(description="Columns and their values; the rest comes from `base`.")
    expect: StrictBool | StrictInt | StrictFloat | StrictStr | None = Field(
        None, description="The class that must be predicted."
    )
    at_least: Number | None = Field(None, description="The probability (regression: the number) must reach this.")
    at_most: Number | None = Field(None, description="It must not pass this.")
    cls: StrictBool | StrictInt | StrictStr | None = Field(
        None, alias="class", description="Whose probability; default: the positive class."
    )

    @model_validator(mode="after")
    def _something(self) -> Output:
        ends = [v for v in (self.at_least, self.at_most) if v is not None]
        refuse(
            {
                "give `expect`, or `at_least`, `at_most` or both": (self.expect is None) == (not ends),
                "`at_least` and `at_most` must be finite numbers": any(not isfinite(v) for v in ends),
                "`at_least` is larger than `at_most`: no value fits": len(ends) == 2 and ends[0] > ends[1],
                "`class` belongs to `at_least` and `at_most`": self.cls is not None and not ends,
            }
        )
        return self


class _Changed(_Case):
    rows: Annotated[list[Row], Field(min_length=1)] | None = Field(
        None, description="Rows to change; default: up to 200 of the holdout."
    )
    min_share: Annotated[StrictFloat, Field(gt=0, le=1)] = Field(1.0, description="Share of rows that must hold.")


class Invariance(_Changed):
    """What the model must not be moved by: one column changes, the prediction stays."""

    change: Column = Field(description="The column to change.")
    to: Annotated[list[Scalar], Field(min_length=1)] | None = Field(
        None, description="The values it is set to in turn."
    )
    by: Number | None = Field(None, description="Or: what is added to its number.")
    within: Annotated[StrictFloat, Field(ge=0)] | None = Field(
        None,
        description="How far any class's probability (regression: the number) may move; default: the predicted class, "
        "or the number, stays the same.",
    )

    @model_validator(mode="after")
    def _one_change(self) -> Invariance:
        refuse(
            {
                "give exactly one of `to` and `by`": (self.to is None) == (self.by is None),
                "`by` must be a finite number other than 0": self.by is not None
                and (self.by == 0 or not isfinite(self.by)),
            }
        )
        return self


class Direction(_Changed):
    """Which way the model must go when a number grows."""

    increase: Column = Field(description="The column that grows.")
    by: Number = Field(description="By how much; above 0.")
    must_not: Literal["fall", "rise"] = Field(description="What the probability (regression: the number) must not do.")
    within: Annotated[StrictFloat, Field(ge=0)] = Field(0.0, description="So much of it is let pass.")
    cls: StrictBool | StrictInt | StrictStr | None = Field(
        None, alias="class", description="Whose probability; default: the positive class."
    )

    @model_validator(mode="after")
    def _grows(self) -> Direction:
        refuse({"`by` must be a finite number above 0": not (isfinite(self.by) and self.by > 0)})
        return self


class Recorded(_Model):
    """What a file holds."""

    base: Row = Field(default_factory=dict, description="Values of columns that a row does not give.")
    outputs: list[Output] = Field(default_factory=list, description="What it must say.")
    invariances: list[Invariance] = Field(default_factory=list, description="What it must not be moved by.")
    directions: list[Direction] = Field(default_factory=list, description="Which way it must go.")

    @model_validator(mode="after")
    def _some(self) -> Recorded:
        if not (self.outputs or self.invariances or self.directions):
            raise ValueError("give at least one of `outputs`, `invariances` and `directions`")
        return self


@dataclass(frozen=True)
class Case:
    """One recorded behaviour: its kind, name and the line, from 1, where it stands."""

    kind: Kind
    name: str
    line: int
    case: Output | Invariance | Direction


@dataclass(frozen=True)
class Behaviours:
    """A file that was read: its name as the pipeline has it, the sha256 of its text, and what it holds."""

    file: str
    digest: str
    base: Row
    cases: tuple[Case, ...]

    def rows(self, case: Case) -> list[Row] | None:
        """The rows a case gives, filled up from ``base``; ``None``: those of the holdout."""
        given = [case.case.row] if isinstance(case.case, Output) else case.case.rows
        return None if given is None else [self.base | row for row in given]

    def named(self) -> Iterator[tuple[int, str]]:
        """Each line with a column that is named there."""
        yield from ((1, name) for name in self.base)
        for case in self.cases:
            inner = case.case
            if not isinstance(inner, Output):
                yield case.line, inner.change if isinstance(inner, Invariance) else inner.increase
            for row in [inner.row] if isinstance(inner, Output) else inner.rows or []:
                yield from ((case.line, name) for name in row)


def read_behaviours(folder: Path, name: str) -> Behaviours:
    """Read the file ``name`` of ``folder``.

    :raises InvalidPipeline: with file, line and column of everything that is wrong with it.
    """
    path = folder / name
    text = read_text(path)
    source = _table(text, str(path)) if name.endswith(".csv") else parse(text, str(path))
    recorded = None if source.failed else _validated(source)
    if recorded is None:
        raise InvalidPipeline(source.issues)
    cases = []
    for kind, key in (("output", "outputs"), ("invariance", "invariances"), ("direction", "directions")):
        for i, case in enumerate(getattr(recorded, key)):
            line = source.place((key, i)).line + 1
            cases.append(Case(kind, case.name or f"{kind} {i + 1}", line, case))  # type: ignore[arg-type]
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Behaviours(name, digest, recorded.base, tuple(cases))


def unknown_columns(found: Behaviours, known: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Line, name and advice for each column that the data lacks."""
    told: set[str] = set()
    for line, name in found.named():
        if name not in known and name not in told:
            told.add(name)
            close = difflib.get_close_matches(name, known, 1)
            listed = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
            yield line, name, f"did you mean {close[0]!r}?" if close else f"the columns are {listed}"


def files_of(gates: Iterable[Any]) -> list[str]:
    """The files that gates name, each once."""
    return list(dict.fromkeys(gate.behaviours for gate in gates if gate.behaviours is not None))


def _validated(source: Source) -> Recorded | None:
    try:
        return Recorded.model_validate(source.data, by_alias=True, by_name=False)
    except ValidationError as e:
        for detail in e.errors(include_url=False):
            path, _ = source.resolve(tuple(detail["loc"]))
            where = ".".join(map(str, path))
            message, advice = detail["msg"].removeprefix("Value error, "), None
            if detail["type"] == "extra_forbidden":
                message = f"unknown key `{path[-1]}`"
                close = difflib.get_close_matches(str(path[-1]), _keys(path[:-1]), 1)
                advice = f"did you mean `{close[0]}`?" if close else f"known keys are {', '.join(_keys(path[:-1]))}"
            elif detail["type"] == "missing":
                message = f"`{detail['loc'][-1]}` is missing"
            elif path:
                message = f"`{path[-1]}`: {message}" if isinstance(path[-1], str) else message
            for line in message.split("\n"):
                issue = (source.place(path), detail["type"], line, advice, where)
                # A union tells the same of each of its members.
                if not any((i.path, i.message) == (where, line) for i in source.issues):
                    source.add(*issue)
        return None


def _keys(path: tuple[Any, ...]) -> list[str]:
    kinds: dict[Any, type[BaseModel]] = {"outputs": Output, "invariances": Invariance, "directions": Direction}
    model = kinds.get(path[0] if path else None, Recorded)
    return [info.alias or name for name, info in model.model_fields.items()]


def _table(text: str, filename: str) -> Source:
    """A CSV table as the outputs it stands for: a row each, with the columns of what is expected among them."""
    lines = text.splitlines()
    source = Source(Text(filename, lines or [""]))
    reader = csv.reader(lines, strict=True)
    outputs: list[dict[str, Any]] = []
    try:
        header = next(reader, [])
        if len(set(header)) < len(header) or not set(header) & {"expect", "at_least", "at_most"}:
            what = "names its columns twice" if len(set(header)) < len(header) else "has no column of what is expected"
            source.add(
                source.at(0), "table", f"the header {what}", "name expect, or at_least and at_most, beside the data"
            )
            return source
        places: list[Place] = []
        for row in reader:
            place = source.at(reader.line_num - 1)
            if not row:
                continue
            if len(row) != len(header):
                source.add(place, "table", f"{len(row)} fields, and the header has {len(header)}", "check the commas")
                continue
            values = {k: plain_scalar(source, v, place) if v else None for k, v in zip(header, row, strict=True)}
            case = {k: v for k, v in values.items() if k in _LABELS and v is not None}
            if "name" in case:
                case["name"] = str(case["name"])
            outputs.append(case | {"row": {k: v for k, v in values.items() if k not in _LABELS}})
            places.append(place)
    except csv.Error as e:
        source.add(source.at(max(reader.line_num - 1, 0)), "table", f"not a valid CSV table: {e}", "check the quotes")
        return source
    if not outputs and not source.failed:
        source.add(source.at(0), "table", "the table has no rows", "add one row for each expected output")
    source.data = {"outputs": outputs}
    whole = source.at(0)
    source.put(source.data, {"outputs": (whole, whole)})
    source.put(outputs, places)
    for output, place in zip(outputs, places, strict=True):
        source.put(output, dict.fromkeys(output, (place, place)))
        source.put(output["row"], dict.fromkeys(output["row"], (place, place)))
    return source


def missing_columns(row: Row, needed: Collection[str]) -> list[str]:
    """Columns that a row has to give and does not."""
    return sorted(set(needed) - row.keys())
