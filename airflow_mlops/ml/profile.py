"""A first look at a snapshot: what each column holds, how much is missing, how the target is spread."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_mlops.ml.html import render
from airflow_mlops.ml.privacy import PRIVATE
from airflow_mlops.ml.schema import family
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.store.base import Store

_TOP, _BINS, _FEW = 10, 20, 20


def profile(
    snapshot: Snapshot, store: Store, *, target: str | None = None, private: Collection[str] = ()
) -> dict[str, Any]:
    """Describe every column in plain JSON; one column is in memory at a time.

    :param target: its balance is given at the top.
    :param private: columns of which only the name is given, and ``"kind": "private"``.
    :return: ``pipeline, snapshot, rows, window, columns: [{name, type, kind, nulls, null_percent, distinct, …}]``;
        numbers and times with min, max, quantiles and a histogram, the rest with the most frequent values.
    """
    with snapshot.download(store) as paths:
        columns = [
            {"name": name, "kind": PRIVATE} if name in private else _column(paths, name, kind, snapshot.rows)
            for name, kind in snapshot.columns.items()
        ]
        balance = _frequent(_read(paths, target)) if target in snapshot.columns else None
    if balance is not None and balance["others"]:
        balance = None  # a measure, not classes: its histogram is among the columns
    return {
        "pipeline": snapshot.pipeline,
        "snapshot": snapshot.digest,
        "fingerprint": snapshot.fingerprint,
        "rows": snapshot.rows,
        "window": snapshot.window.to_dict() if snapshot.window else None,
        "source": snapshot.source.get("uri") or snapshot.source.get("callable") or snapshot.source.get("conn_id"),
        "target": target,
        "target_balance": balance["values"] if balance else None,
        "columns": columns,
    }


def _read(paths: list[Path], name: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([c for p in paths for c in pq.read_table(p, columns=[name]).column(0).chunks])


def _column(paths: list[Path], name: str, arrow_type: str, rows: int) -> dict[str, Any]:
    values = _read(paths, name)
    kind = family(arrow_type)
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    nulls = values.null_count
    described: dict[str, Any] = {
        "name": name,
        "type": arrow_type,
        "kind": kind,
        "nulls": nulls,
        "null_percent": round(100 * nulls / rows, 4) if rows else 0.0,
    }
    present = values.drop_null() if nulls else values
    del values
    if kind == "number" and len(present):
        described |= {"distinct": _distinct(present)} | _numbers(present)
    elif (
        kind == "time"
        and len(present)
        and not pa.types.is_duration(present.type)
        and not pa.types.is_time(present.type)
    ):
        described |= {"distinct": _distinct(present)} | _times(present)
    elif kind in ("text", "boolean") and len(present):
        described |= _frequent(present)
    return described


def _distinct(values: pa.ChunkedArray) -> int:
    """How many different values there are, of a column without gaps; by sorting, which takes less than a hash table."""
    if pa.types.is_decimal(values.type):
        return int(pc.count_distinct(values).as_py())
    numbers = values.to_numpy()
    bits = numbers.view(f"i{numbers.dtype.itemsize}")
    if not bits.flags.writeable:
        bits = bits.copy()
    bits.sort()
    return 1 + int(np.count_nonzero(bits[1:] != bits[:-1]))


def _numbers(values: pa.ChunkedArray) -> dict[str, Any]:
    numbers = values.cast(pa.float64()).to_numpy()
    good = np.isfinite(numbers)
    finite = numbers if good.all() else numbers[good]
    described: dict[str, Any] = {"infinite": int(len(numbers) - len(finite))}
    if len(finite):
        shares = (0.05, 0.25, 0.5, 0.75, 0.95)
        with np.errstate(over="ignore", invalid="ignore"):  # sums and spans of huge numbers: shown as unknown
            mean, std, quantiles = finite.mean(), finite.std(), np.quantile(finite, shares)
        described |= {
            "min": float(finite.min()),
            "max": float(finite.max()),
            "mean": _finite(mean),
            "std": _finite(std),
            "quantiles": {f"{q:g}": _finite(v) for q, v in zip(shares, quantiles, strict=True)},
            "histogram": _histogram(finite),
        }
    return described


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _histogram(values: np.ndarray[Any, Any]) -> list[int]:
    low, high = float(values.min()), float(values.max())
    # The span of very large or very close numbers may not have room for equal bins.
    if not np.isfinite(high - low) or low + (high - low) / _BINS <= low:
        return [len(values)]
    counts = np.histogram(values, bins=_BINS, range=(low, high))[0]
    return [int(c) for c in counts]


def _times(values: pa.ChunkedArray) -> dict[str, Any]:
    ends = pc.min_max(values)
    zone = getattr(values.type, "tz", None)
    ticks = values.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64()).to_numpy().astype(np.float64)
    return {
        "min": ends["min"].as_py().isoformat(),
        "max": ends["max"].as_py().isoformat(),
        "histogram": _histogram(ticks),
    }


def _frequent(values: pa.ChunkedArray) -> dict[str, Any]:
    counted = pc.value_counts(values.drop_null() if values.null_count else values)
    counts = counted.field("counts").to_numpy()
    order = np.argsort(-counts, kind="stable")[: _TOP if len(counts) > _FEW else _FEW]
    total = int(counts.sum())
    shown = [{"value": _plain(counted.field("values")[int(i)].as_py()), "count": int(counts[i])} for i in order]
    for entry in shown:
        entry["percent"] = round(100 * entry["count"] / total, 4)
    return {"distinct": len(counts), "values": shown, "others": total - sum(e["count"] for e in shown)}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, str)) else str(value)


_BODY = """
{% macro spread(c) %}
{% if c.get("values") %}
{% for v in c["values"][:5] %}<code>{{ v.value | short }}</code> {{ "%.1f" | format(v.percent) }} %<br>{% endfor %}
{% if c.distinct > 5 %}<span class="dim">and {{ (c.distinct - 5) | short }} more</span>{% endif %}
{% elif "min" in c %}{{ c.min | short }} … {{ c.max | short }}
{% if "mean" in c %}<br><span class="dim">mean</span> {{ c.mean | short }}
<span class="dim">std</span> {{ c.std | short }}
<br><span class="dim">5 / 50 / 95 %</span>
{{ c.quantiles["0.05"] | short }} / {{ c.quantiles["0.5"] | short }} / {{ c.quantiles["0.95"] | short }}{% endif %}
{% else %}<span class="dim">no values</span>{% endif %}
{% if c.get("infinite") %}<br><span class="bad">{{ c.infinite | short }} infinite</span>{% endif %}
{% endmacro %}
{% macro histogram(c) %}
{% set top = c.histogram | max %}{% set width = 160 / (c.histogram | length) %}
<svg width="160" height="44" role="img" aria-label="histogram of {{ c.name }}">
{% for n in c.histogram %}{% set height = 44 * n / top %}
<rect x="{{ loop.index0 * width }}" y="{{ 44 - height }}" width="{{ width - 1 }}" height="{{ height }}">
<title>{{ n | short }} rows</title></rect>{% endfor %}</svg>
{% endmacro %}
<p class="dim">{{ p.rows | short }} rows × {{ p.columns | length }} columns
{% if p.window %} · window {{ p.window.start }} … {{ p.window.end }}{% endif %}
{% if p.source %} · from <code>{{ p.source }}</code>{% endif %} · fingerprint <code>{{ p.fingerprint[:12] }}</code></p>
{% if p.target_balance %}<h2>Target {{ p.target }}</h2>
<table><tr><th>Value</th><th class="n">Rows</th><th class="n">Share</th></tr>
{% for v in p.target_balance %}<tr><td><code>{{ v.value }}</code></td><td class="n">{{ v.count | short }}</td>
<td class="n">{{ "%.2f" | format(v.percent) }} %</td></tr>{% endfor %}</table>{% endif %}
<h2>Columns</h2><div class="scroll"><table>
<tr><th>Column</th><th>Kind</th><th class="n">Missing</th><th class="n">Distinct</th><th>Spread</th><th></th></tr>
{% for c in p.columns %}
<tr><td><code>{{ c.name }}</code>{% if c.name == p.target %} <span class="dim">target</span>{% endif %}</td>
<td>{{ c.kind }}{% if "type" in c %}<br><span class="dim">{{ c.type }}</span>{% endif %}</td>
{% if c.kind == "private" %}<td colspan="4"><span class="dim">not shown (data.private)</span></td></tr>
{% else %}<td class="n">{{ "%.2f" | format(c.null_percent) }} %<br><span class="dim">{{ c.nulls | short }}</span></td>
<td class="n">{{ c.get("distinct") | short }}</td>
<td>{{ spread(c) }}</td><td>{% if c.get("histogram") %}{{ histogram(c) }}{% endif %}</td></tr>{% endif %}
{% endfor %}</table></div>
"""


def profile_html(profile: dict[str, Any]) -> str:
    """A self-contained page of what :func:`profile` returned; no script, light and dark."""
    return render(_BODY, title=f"Data profile of {profile['pipeline']}", p=profile)
