"""The readable form of a validation result: one table, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_mlops.ml.expectations import Check
from airflow_mlops.ml.html import render

_BODY = """
<p class="{{ "ok" if success else "bad" }}">{{ sentence }}</p>
<p class="dim">{{ statistics.rows | short }} rows
{%- if window %} · window {{ window }}{% endif %} · snapshot <code>{{ snapshot[:12] }}</code></p>
<div class="scroll"><table>
<tr><th></th><th>Expectation</th><th>Column</th><th class="n">Unexpected</th><th class="n">%</th>
<th>Examples or observed</th><th>Rows</th></tr>
{% for c in checks %}
<tr><td class="{{ "ok" if c.success else "bad" }}">{{ "✓ passed" if c.success else "✗ failed" }}</td>
<td><code>{{ c.expectation }}</code>{% if c.arguments %}<br><span class="dim">{{ c.arguments }}</span>{% endif %}
{% if c.severity != "critical" %}<br><span class="dim">severity {{ c.severity }}: does not block</span>{% endif %}</td>
<td>{% if c.column %}<code>{{ c.column }}</code>{% endif %}</td>
<td class="n">{{ c.unexpected_count | short }}</td>
<td class="n">{{ c.unexpected_percent | short }}</td>
<td>{% for e in c.examples %}<code>{{ e }}</code> {% endfor %}{{ c.observed }}
{%- if c.private %}<span class="dim">private</span>{% endif %}</td>
<td class="dim">{{ c.rows | join(", ") }}</td></tr>
{% endfor %}
</table></div>
{% if skipped %}<h2>Not evaluated</h2><p>The target is not known yet, so these wait:</p><ul>
{% for s in skipped %}<li><code>{{ s }}</code></li>{% endfor %}</ul>{% endif %}
<p class="dim">Rows count from 1 in the snapshot. Examples are a few of the values, not all.</p>
"""


def expectations_html(
    pipeline: str,
    snapshot: str,
    window: str | None,
    *,
    success: bool,
    sentence: str,
    checks: Sequence[Check],
    skipped: Sequence[str],
    statistics: dict[str, Any],
) -> str:
    """A self-contained page with a row per check; values from the data are escaped."""
    return render(
        _BODY,
        title=f"Validation of {pipeline}",
        snapshot=snapshot,
        window=window,
        success=success,
        sentence=sentence,
        checks=sorted(checks, key=lambda c: c.success),
        skipped=skipped,
        statistics=statistics,
    )
