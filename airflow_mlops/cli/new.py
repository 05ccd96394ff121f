"""``airflow mlops new``: a pipeline file to start from."""

from __future__ import annotations

import re
import shlex
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.config.loader import load_text
from airflow_mlops.config.maturity import level_number
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.starter import Findings, scalar, starter
from airflow_mlops.config.writing import exists, write_whole
from airflow_mlops.exceptions import ConfigError, DataNotFound

if TYPE_CHECKING:
    import pandas as pd

_TEMPLATE_MARKS = ("{{", "{%", "{#")


@clear_errors
def new(args: Namespace) -> None:
    """Look at the data, write the file, and say what was decided."""
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.ml.files import Files
    from airflow_mlops.ml.inference import look
    from airflow_mlops.ml.peek import peek

    name, level = _name(args.name), _level(args.level)
    path = Path(args.out or f"{name}.yaml")
    example = None if args.data else path.with_name(f"{name}_example.csv")
    for file in (path, example) if not args.force else ():
        if file is not None and file.exists():
            raise exists(file)
    root = MLOpsHook().data_root
    if example is not None:
        if args.target:
            raise ConfigError("--target names a column of your data", hint="name the data, too: --from DATA")
        frame = example_data()
        found = look(frame, complete=True)
        source = _source(str(example), root)
    else:
        source = _source(args.data, root)
        try:
            frame, complete = peek(args.data, Files(root=str(Path.cwd())))
        except DataNotFound as e:
            raise DataNotFound(e.message, hint="the path starts in the current folder; quote a glob") from e
        found = look(frame, complete=complete, target=args.target)
    text = starter(name, level, source, found, _head(args.data, found, path))
    load_text(text, str(path))
    if example is not None:
        write_whole(example, frame.to_csv(index=False).encode(), new=not args.force)
    write_whole(path, text.encode(), new=not args.force)
    for line in _told(path, example, source, found, level):
        print(line)


def example_data() -> pd.DataFrame:
    """scikit-learn's breast cancer data, with an id for each row: 569 rows, 32 columns."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer(as_frame=True)
    frame: pd.DataFrame = bunch.data.rename(columns=lambda column: column.replace(" ", "_"))
    frame.insert(0, "sample_id", [f"sample-{i:03d}" for i in range(len(frame))])
    frame["diagnosis"] = bunch.target.map({0: "malignant", 1: "benign"}).astype(object)
    return frame


def _name(name: str) -> str:
    (rule,) = (m.pattern for m in PipelineConfig.model_fields["pipeline"].metadata if hasattr(m, "pattern"))
    if not re.fullmatch(rule, name):
        raise ConfigError(
            f"{name[:80]!r} cannot be a pipeline's name", hint="a letter, then letters, digits, - and _; at most 100"
        )
    return name


def _level(value: str) -> int:
    try:
        return level_number(value)
    except ValueError as e:
        raise ConfigError(str(e), hint="--level 0, 1 or 2") from e


def _source(given: str, root: str) -> str:
    """What finds ``given``, which is meant from the current folder, as ``data.source``."""
    if any(mark in given for mark in _TEMPLATE_MARKS):
        raise ConfigError(f"{given!r} would be read as a template in a pipeline file", hint="name or link it otherwise")
    if "://" in given:
        return given
    # Not resolved: a link may be how the data move on.
    absolute = Path.cwd() / Path(given).expanduser()
    parts: list[str] = []
    for part in absolute.parts:
        if part == "..":
            parts = parts[:-1] if len(parts) > 1 else parts
        else:
            parts.append(part)
    path = Path(*parts)
    if "://" not in root and path.is_relative_to(Path(root)):
        return str(path.relative_to(Path(root)))
    return str(path)


def _head(data: str | None, found: Findings, path: Path) -> list[str]:
    made = ["It works as it is, on scikit-learn's breast cancer data."]
    made += ["For your own data: airflow mlops new NAME --from DATA; or change source, target and column names."]
    if data is not None:
        rows = f"{found.rows:,} rows" + ("" if found.complete else " of it, not all")
        made = [f"Made from {scalar(data)}: {rows}, {found.columns} columns. What was guessed is for you to check."]
    return [*made, f"Check it: airflow mlops lint {path.name}; try it: airflow mlops run {path.name}"]


def _told(path: Path, example: Path | None, source: str, found: Findings, level: int) -> Iterator[str]:
    yield f"{path} written, for level {level}"
    if example is not None:
        yield f"{example} written: example data, {found.rows} rows"
    yield f"  source     {source}"
    if source.startswith("/"):
        yield "             (absolute: it does not lie below [mlops] data_root)"
    yield f"  rows       {found.rows:,}" + ("" if found.complete else " looked at; there are more")
    others = f"; could be: {', '.join(map(scalar, found.candidates[:3]))}" if found.candidates else ""
    yield f"  target     {scalar(found.target)}{others}"
    share = f", {scalar(found.positive)} in {found.share:.1%}" if found.share is not None else ""
    classes = "" if found.classes is None else f", {found.classes} classes{share}"
    yield f"  task       {found.task}{classes}"
    yield f"  id         {scalar(found.id) if found.id is not None else '– (no column looks like one)'}"
    yield f"  timestamp  {scalar(found.timestamp) if found.timestamp is not None else '–'}"
    yield f"  estimator  {found.estimator}"
    yield f"  gate       {found.bar.metric} at least {found.bar.at_least:g}, to be raised"
    if found.missing:
        yield f"  WARNING    {found.missing:,} rows have no {scalar(found.target)}: a run will stop at them"
    if found.index is not None:
        yield f"  WARNING    the column {scalar(found.index)} looks like row numbers; drop it from the data"
    for leak in found.leaks[:3]:
        yield f"  WARNING    {scalar(leak)} alone tells the target: known beforehand?"
    sample = " --sample 5000" if found.rows > 20_000 else ""
    file = shlex.quote(str(path))
    yield f"next:\n  airflow mlops lint {file}\n  airflow mlops run {file}{sample}\n  airflow mlops describe {file}"
