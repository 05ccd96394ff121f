"""What a training of a fleet came to, as a page: counts, what failed and why, how the scores are spread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from airflow_mlops.ml.fleet.result import Row, count, sentence
from airflow_mlops.ml.fleet.training import FAILED
from airflow_mlops.ml.html import render

MOST_ROWS = 200
_BINS = 30
_ORDER = (FAILED, "rejected", "inconclusive", "no_baseline", "passed", "fallback", "retired")

_PAGE = """\
<p><b>{{ sentence }}</b></p>
{% if tests %}
<p class="dim">{{ "{:,}".format(tests) }} keys were compared with a champion. Over all of them p must be at most
{{ "%.2g" | format(limit) }}, so that at most {{ "%.2g" | format(100 * alpha) }} % of those that pass are expected to be
worse than they may be (Benjamini &amp; Hochberg).</p>
{% endif %}
{% for chart in charts %}
<h2>{{ chart.name }}</h2>
<p class="dim">{{ "{:,}".format(chart.many) }} keys: half lie between {{ chart.low | short }} and
{{ chart.high | short }}, the middle one is {{ chart.middle | short }}.</p>
<svg role="img" aria-label="{{ chart.name }} of {{ chart.many }} keys" width="100%" height="90"
 viewBox="0 0 {{ bins * 20 }} 90" preserveAspectRatio="none">
{% for height in chart.heights %}
<rect x="{{ loop.index0 * 20 + 1 }}" y="{{ 90 - height }}" width="18" height="{{ height }}"><title>\
{{ chart.edges[loop.index0] | short }} … {{ chart.edges[loop.index] | short }}: {{ chart.tally[loop.index0] }} keys\
</title></rect>
{% endfor %}</svg>
<p class="dim">{{ chart.edges[0] | short }} <span style="float:right">{{ chart.edges[-1] | short }}</span></p>
{% endfor %}
{% for group in groups %}
<h2>{{ group.words }}: {{ "{:,}".format(group.many) }}</h2>
{% if group.many > group.rows | length %}<p class="dim">The first {{ group.rows | length }}; \
<code>airflow mlops fleet failures</code> and <code>show KEY</code> have the others.</p>{% endif %}
<div class="scroll"><table><thead><tr><th>Key</th><th>Version</th><th class="n">Rows</th>{% for m in metrics %}\
<th class="n">{{ m }}</th><th class="n">champion</th>{% endfor %}<th>Why</th></tr></thead><tbody>
{% for row in group.rows %}
<tr><td>{{ row.key }}</td><td>{{ "v%d" | format(row.version) if row.get("version") else "–" }}</td>\
<td class="n">{{ row.get("holdout_rows") | short }}</td>{% for m in metrics %}\
<td class="n">{{ (row.get("metrics") or {}).get(m) | short }}</td>\
<td class="n">{{ (row.get("champion_metrics") or {}).get(m) | short }}</td>{% endfor %}<td>{{ row.reason }}</td></tr>
{% endfor %}</tbody></table></div>
{% endfor %}
"""


def fleet_report_html(
    rows: Sequence[Row], *, title: str, tests: int, limit: float | None, alpha: float, not_due: int
) -> str:
    """The page.

    :param rows: one for each key, :mod:`airflow_mlops.ml.fleet.result`.
    :param tests: keys compared with a champion; ``limit``: the largest p-value that passes; ``alpha``: the error
        probability over all of them.
    """
    by_status: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_status[row["status"]].append(row)
    metrics = list(dict.fromkeys(name for row in rows for name in row.get("metrics") or ()))[:3]
    groups = [
        {
            "words": status.replace("_", " "),
            "many": len(found),
            "rows": sorted(found, key=lambda row: row["key"])[:MOST_ROWS],
        }
        for status in _ORDER
        if (found := by_status.get(status))
    ]
    return render(
        _PAGE,
        title=title,
        sentence=sentence(count(rows, not_due=not_due)),
        tests=tests,
        limit=limit or 0.0,
        alpha=alpha,
        metrics=metrics,
        groups=groups,
        charts=[_chart(name, rows) for name in metrics],
        bins=_BINS,
    )


def _chart(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    values = np.array([row["metrics"][name] for row in rows if name in (row.get("metrics") or {})])
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    # A few keys without any skill would leave all others in one bar.
    first, last = np.quantile(values, [0.01, 0.99])
    counts, edges = np.histogram(values.clip(first, last), bins=_BINS)
    return {
        "name": name,
        "many": len(values),
        "low": float(low),
        "middle": float(middle),
        "high": float(high),
        "tally": counts.tolist(),
        "edges": edges.tolist(),
        "heights": (88 * counts / max(counts.max(), 1) + (counts > 0) * 2).round(1).tolist(),
    }
