"""The report of a delivery as a page: what each step found, where every environment stands now, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_mlops.ml.html import render

_PAGE = """
<p class="dim">Commit <code>{{ source.commit }}</code>
{%- if source.ref %}, named by <code>{{ source.ref }}</code>{% endif %}
{%- if source.base %}, compared with <code>{{ source.base[:12] }}</code>, which is deployed{% endif %}
{%- if reason %}. Reason: {{ reason }}{% endif %}</p>
<p class="{{ 'bad' if failed else '' }}">{{ verdict }}</p>
{% if todo %}<h2>What to do</h2>
<ul>{% for line in todo %}<li>{{ line }}</li>{% endfor %}</ul>{% endif %}
{% if environments %}<h2>Environments</h2>
<div class="scroll"><table><tr><th>Environment</th><th class="n">Before</th><th class="n">Now</th><th></th></tr>
{% for e in environments %}<tr><td>{{ e.name }}</td><td class="n"><code>{{ e.before }}</code></td>
<td class="n"><code>{{ e.now }}</code></td><td>{{ e.said }}</td></tr>
{% endfor %}</table></div>{% endif %}
<h2>Steps</h2>
<div class="scroll"><table><tr><th>Step</th><th>Result</th><th>What was found</th><th>When (UTC)</th></tr>
{% for record in records %}<tr><td>{{ record.step }}</td>
<td class="{{ marks.get(record.status, '') }}">{{ record.status }}</td>
<td>{% for line in record.told[:most] %}<div>{{ line }}</div>{% endfor %}
{% if record.told | length > most %}<div class="dim">… {{ record.told | length - most }} lines more</div>{% endif %}
</td><td>{{ record.at[11:19] }}</td></tr>
{% endfor %}</table></div>
{% for record in failures %}<h2>Why {{ record.step }} failed</h2>
<pre class="scroll">{{ record.told | join('\\n') }}</pre>
{% endfor %}
{% if markdown %}<h2>The report of the stages</h2>
<details><summary>As Markdown, fit for a pull request</summary><pre class="scroll">{{ markdown }}</pre></details>
{% endif %}
"""
_MARKS = {"passed": "ok", "failed": "bad"}
_MOST_LINES = 6


def delivery_page(
    source: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    *,
    verdict: str,
    environments: Sequence[Mapping[str, Any]] = (),
    reason: str | None = None,
    markdown: str | None = None,
) -> str:
    """Return the report as one page of HTML, everything escaped.

    :param source: what :class:`~airflow_mlops.delivery.relay.Source` has; at least ``project`` and ``commit``.
    :param records: of the steps that have said something, in their order.
    :param verdict: how the delivery stands, in a sentence.
    :param environments: ``name``, bundle ``before`` and ``now``, and what was ``said``.
    :param markdown: the report of the stages.
    """
    failures = [record for record in records if record["status"] == "failed"]
    todo = list(dict.fromkeys(record["hint"] for record in failures if record.get("hint")))
    return render(
        _PAGE,
        title=f"Delivery of {source['project']} at {source['commit'][:12]}",
        source={"ref": None, "base": None} | dict(source),
        records=records,
        failures=failures,
        failed=bool(failures),
        verdict=verdict,
        todo=todo,
        environments=environments,
        reason=reason,
        markdown=markdown,
        marks=_MARKS,
        most=_MOST_LINES,
    )
