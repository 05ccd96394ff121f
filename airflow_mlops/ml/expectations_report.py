"""The readable form of a validation result: one table, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.ml.expectations import Check
from airflow_mlops.ml.html import render
from airflow_mlops.ml.label_quality import MOST_CLASSES, LabelQuality

if TYPE_CHECKING:
    from airflow_mlops.ml.expectations_sql import Asked

_MOST_KEYS = 100
_BODY = """
<p class="{{ "ok" if success else "bad" }}">{{ sentence }}</p>
<p class="dim">{{ statistics.rows | short }} rows
{%- if window %} · window {{ window }}{% endif %} · snapshot <code>{{ snapshot[:12] }}</code></p>
{% if asked %}<p class="dim">The expectations were evaluated in the database of <code>{{ asked.conn_id }}</code>
({{ asked.dialect }}), on {{ asked.rows | short }} rows
{%- if not asked.one_state %}; rows that were written meanwhile may be in some answers and not in others{% endif %}.</p>
{% endif %}
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
<td class="dim">{{ c.rows | join(", ") }}{% for i in c.ids %}<code>{{ i }}</code> {% endfor %}</td></tr>
{% endfor %}
</table></div>
{% if broken %}<h2>Keys that fail</h2><p>Each by its own rows, as if it had a pipeline alone.</p>
<div class="scroll"><table><tr><th>Key</th><th>Why</th></tr>
{% for key, why in broken %}<tr><td><code>{{ key }}</code></td><td>{{ why }}</td></tr>
{% endfor %}</table></div>
{% if more_broken %}<p class="dim">and {{ more_broken | short }} more</p>{% endif %}
{% endif %}
{% if skipped %}<h2>Not evaluated</h2><p>The target is not known yet, so these wait:</p><ul>
{% for s in skipped %}<li><code>{{ s }}</code></li>{% endfor %}</ul>{% endif %}
{% if labels %}<h2>Labels</h2><p>{{ labels.summary }}.</p>
{% if labels.classes %}<table><tr><th>Class</th><th class="n">Rows</th><th class="n">Share</th>
{% if labels.reference %}<th class="n">Before</th><th class="n">p</th>{% endif %}</tr>
{% for c in labels.classes[:most] %}<tr><td><code>{{ c.label | short }}</code></td>
<td class="n">{{ c.rows | short }}</td>
<td class="n">{{ "%.2f" | format(100 * c.share) }} %</td>
{% if labels.reference %}<td class="n">{{ "%.2f" | format(100 * c.reference) }} %</td>
<td class="n">{{ "%.2g" | format(c.p_value) }}</td>{% endif %}</tr>
{% endfor %}</table>
{% if labels.classes | length > most %}
<p class="dim">and {{ labels.classes | length - most }} more classes</p>{% endif %}
{% endif %}
{% if labels.conflicts and labels.conflicts.rows %}<p>{{ labels.conflicts.groups | short }} groups of rows are equal in
every column a model may read, and have different labels;
rows {{ labels.conflicts.example | join(" and ") }} for example
(<code>{{ labels.conflicts.labels | join("</code>, <code>" | safe) }}</code>). Any model gets at least
{{ labels.conflicts.floor | short }} of these {{ labels.conflicts.rows | short }} rows wrong.</p>{% endif %}
{% endif %}
<p class="dim">Rows count from 1 in the snapshot
{%- if asked %}; in the database they are told by their <code>data.id</code>{% endif %}.
Examples are a few of the values, not all.</p>
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
    labels: LabelQuality | None = None,
    broken: Mapping[str, str] | None = None,
    asked: Asked | None = None,
) -> str:
    """A self-contained page with a row per check; values from the data are escaped.

    :param broken: why, by key of a fleet that is not fit for use; the first hundred are shown.
    """
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
        labels=labels,
        asked=asked,
        most=MOST_CLASSES,
        broken=[*(broken or {}).items()][:_MOST_KEYS],
        more_broken=max(len(broken or {}) - _MOST_KEYS, 0),
    )
