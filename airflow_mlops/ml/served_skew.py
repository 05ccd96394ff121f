"""Feature skew of what was served: the capture against a replay through the version's own feature code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from airflow_mlops.config.models import Data, Skew
from airflow_mlops.exceptions import ConfigError, DataError, DataNotFound
from airflow_mlops.ml.data import read_batches
from airflow_mlops.ml.features import FeatureSchema, apply_features, recorded_code
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.html import render
from airflow_mlops.ml.joining import same_keys
from airflow_mlops.ml.prediction import arrow_batches, capture_columns, read_capture, read_raw
from airflow_mlops.ml.sampling import RowsById
from airflow_mlops.ml.skew import SkewReport, check_skew
from airflow_mlops.registry.lineage import code_version
from airflow_mlops.registry.registry import Version
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window


def skew(
    store: Store,
    capture: dict[str, Any],
    version: Version,
    config: Skew,
    *,
    data: Data,
    files: Files,
    allowed_imports: Sequence[str] = (),
) -> tuple[dict[str, Any], str]:
    """Replay served rows through the feature code that ``version`` was trained with, and compare row by row.

    The rows come from ``config.source``, read as training reads its source, or else are those that the capture
    kept. Private features were not captured and are not compared. Of the capture only the ids are all in memory, and
    the rows that are compared.

    :param files: opens ``config.source``.
    :returns: ``{"verdict", "sentence", "version", "rows", "unmatched", "unserved", "columns": […], "private": […]}``
        and the report's page. Columns are without examples, which only the page has.
    :raises ConfigError: ``data.id`` is not set, so that nothing can be joined.
    :raises DataError: the rows cannot be read or their feature code fails.
    """
    if data.id is None:
        raise ConfigError("monitor.skew needs data.id: the column that names a row", hint="set data.id")
    schema = FeatureSchema.from_dict(version.record["schema"]).hiding(data.private)
    there = capture_columns(store, capture)
    if data.id not in there:
        raise DataError(
            f"the capture has no column {data.id!r} (data.id), so no row can be replayed",
            hint=f"a capture needs the id beside the features; the columns are: {', '.join(there)}",
        )
    wanted = schema.narrowed([n for n in schema.names if n not in schema.private], "private")
    captured = wanted.narrowed([n for n in wanted.names if n in there], "not captured")
    ids = read_capture(store, capture, [data.id])[data.id]
    replay = _rows(store, capture, ids, config, data, files)
    code = recorded_code(version.record)
    if isinstance(replay, str):
        report, whence = SkewReport("not_enough_data", f"not enough data: {replay}", (), 0, len(ids)), "served rows"
    else:
        served = _marked(store, capture, replay.concerned)
        mine = ids[replay.concerned]
        report = _compare(served, mine, replay, wanted, captured, code, config, data, allowed_imports)
        whence = replay.whence
    notes = [report.sentence]
    if schema.private:
        notes.append(f"not checked, because private: {', '.join(schema.private)}")
    if report.verdict == "skew" and _changed(code, version.record):
        notes.append(f"the file of {code} is not the one that v{version.number} was trained with")
    result = {
        "verdict": report.verdict,
        "sentence": "; ".join(notes),
        "version": version.number,
        "rows": report.rows,
        "unmatched": report.unmatched,
        "unserved": report.unserved,
        "columns": [{k: v for k, v in c.to_dict().items() if k != "examples"} for c in report.columns],
        "private": schema.private,
    }
    return result, skew_html(report, notes, title=f"Feature skew of {version.name}", whence=whence)


def _marked(store: Store, capture: dict[str, Any], mask: np.ndarray) -> pd.DataFrame:
    """The rows of a capture that ``mask``, of shape (its rows,), marks."""
    kept, first = [], 0
    for batch in arrow_batches(store, capture):
        last = first + batch.num_rows
        kept.append(batch.filter(pa.array(mask[first:last])))
        first = last
    return pa.Table.from_batches(kept).to_pandas()


def _compare(
    served: pd.DataFrame,
    served_ids: pd.Series,
    replay: _Replay,
    wanted: FeatureSchema,
    captured: FeatureSchema,
    code: str | None,
    config: Skew,
    data: Data,
    allowed: Sequence[str],
) -> SkewReport:
    frame = replay.rows.to_pandas()
    ids = frame[data.id]
    if code is not None:
        frame = apply_features(code, frame, allowed, target=wanted.target, private=data.private)
    try:
        given = captured.check(served, error=DataError)
    except DataError as e:
        raise DataError(f"the capture does not hold what the model reads: {e.message}", hint=e.hint) from e
    try:
        made = wanted.check(frame, error=DataError)
    except DataError as e:
        raise DataError(f"the replay of {replay.whence}: {e.message}", hint=e.hint) from e
    kinds = {f.name: f.kind for f in wanted.features}
    return check_skew(given, made, kinds, config, served_ids=served_ids, replayed_ids=ids)


@dataclass(frozen=True)
class _Replay:
    """Rows to replay, as they come before any feature code.

    :param concerned: shape (served rows,), bool: those that were chosen for the replay, or that have no row there.
    """

    rows: pa.Table
    whence: str
    concerned: np.ndarray


def _rows(
    store: Store, capture: dict[str, Any], ids: pd.Series, config: Skew, data: Data, files: Files
) -> _Replay | str:
    """What to replay, or why there is nothing."""
    if config.source is None:
        raw = read_raw(store, capture)
        if raw is None:
            return "no row was kept as it came when this window was scored"
        left, right = same_keys(ids, raw.column(data.id).to_pandas())
        return _Replay(raw, "the rows as they came when they were scored", np.asarray(left.isin(right)))
    window = Window.from_dict(capture["window"])
    source = data.model_copy(update={"source": config.source, "sql": None, "callable": None})
    chosen = RowsById(config.replay_rows, str(data.id))
    found = np.zeros(len(ids), dtype=bool)
    try:
        for batch in read_batches(source, files=files, window=window, target_optional=True):
            mine, theirs = same_keys(ids, batch.column(data.id).to_pandas())
            chosen.add(batch.filter(pa.array(theirs.isin(mine))))
            found |= mine.isin(theirs)
    except DataNotFound as e:
        return e.message
    rows = chosen.table()
    where = f"the rows of {config.source}"
    if rows is None:
        return f"none of the {len(ids):,} scored rows is among {where} in {window}"
    left, right = same_keys(ids, rows.column(data.id).to_pandas())
    return _Replay(rows, where, ~found | left.isin(right))


def _changed(code: str | None, record: dict[str, Any]) -> bool:
    """Whether the file of the feature code differs from the one that was recorded in training."""
    module = sys.modules.get(code.partition(":")[0]) if code else None
    recorded: dict[str, str] = (record.get("code") or {}).get("files") or {}
    if module is None or not module.__file__ or module.__file__ not in recorded:
        return False
    return code_version([module.__file__])["files"] != {module.__file__: recorded[module.__file__]}


_PAGE = """
<p><b class="{{ 'bad' if report.verdict == 'skew' else 'ok' }}">{{ report.verdict | replace("_", " ") }}</b>:
{{ notes | join("; ") }}.</p>
<p class="dim">Each served row is compared with what the training feature code makes of {{ whence }}, joined by id.
{{ report.rows | short }} rows were compared; {{ report.unmatched | short }} served rows had no row to replay,
{{ report.unserved | short }} rows to replay were not served.</p>
{% if report.columns %}
<div class="scroll"><table><tr><th>Feature</th><th>Kind</th><th>Verdict</th><th class="n">Rows that differ</th>
<th class="n">Share</th><th class="n">Missing when served</th><th class="n">Missing in the replay</th><th>How</th></tr>
{% for c in report.columns | sort(attribute="share", reverse=true) %}
<tr><td>{{ c.name }}</td><td>{{ c.kind }}</td>
<td class="{{ 'bad' if c.skewed else 'ok' }}">{{ "skew" if c.skewed else "no skew" }}</td>
<td class="n">{{ c.differ | short }}</td><td class="n">{{ "%.2f" | format(100 * c.share) }} %</td>
<td class="n">{{ c.lost | short }}</td><td class="n">{{ c.gained | short }}</td><td>{{ c.sentence }}</td></tr>
{% endfor %}</table></div>
{% for c in report.columns if c.examples %}
<h2>{{ c.name }}: rows that differ</h2>
<div class="scroll"><table><tr><th>id</th><th>Served</th><th>Replayed</th></tr>
{% for e in c.examples %}<tr><td><code>{{ e.id }}</code></td><td>{{ e.served | short }}</td>
<td>{{ e.replayed | short }}</td></tr>{% endfor %}</table></div>
{% endfor %}{% endif %}
"""


def skew_html(report: SkewReport, notes: Sequence[str], *, title: str, whence: str) -> str:
    """The comparison as one self-contained page: every feature, and a few rows of those that differ."""
    return render(_PAGE, title=title, report=report, notes=notes, whence=whence)
