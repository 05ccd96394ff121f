"""A look at a rollout as one page: where it stands, what decided, and the windows behind it."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_mlops.ml.html import render
from airflow_mlops.ml.rollout import Look
from airflow_mlops.ml.rollout_evidence import Evidence
from airflow_mlops.registry.registry import Version
from airflow_mlops.registry.rollout import Rollout, share_of, step_name

_BODY = """<p class="dim">{{ tried.name }} against the champion v{{ champion.number }}</p>
<ol class="steps">{% for step in steps %}<li class="{{ step.state }}">{{ step.name }}</li>{% endfor %}</ol>
<p class="{{ {"passed": "ok", "rejected": "bad"}.get(look.verdict, "") }}">{{ words[look.kind] }}</p>
<p>{{ look.sentence }}</p>
<h2>What was judged</h2>
<div class="scroll"><table><thead><tr><th>Check</th><th>Verdict</th><th class="n">Value</th><th class="n">Interval</th>
<th class="n">Limit</th><th>In words</th></tr></thead><tbody>
{% for r in look.results %}<tr><td>{{ r.name }}</td>
<td class="{{ {"passed": "ok", "rejected": "bad"}.get(r.verdict, "") }}">{{ r.verdict }}</td>
<td class="n">{{ number(r.value) }}</td>
<td class="n">{% if r.low is not none %}{{ number(r.low) }} … {{ number(r.high) }}{% else %}–{% endif %}</td>
<td class="n">{{ number(r.threshold) }}</td><td>{{ r.sentence }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="dim">Look {{ look.look }} of {{ looks }} of this step; {{ "%.0f" | format(100 * look.spent) }} % of the error
probability is spent. A comparison is candidate minus champion on the same rows, positive is better.</p>
<h2>Windows of this step</h2>
<div class="scroll"><table><thead><tr><th>Window</th><th class="n">Rows</th>
<th class="n">Served by {{ tried.name }}</th><th class="n">Champion, s</th>
<th class="n">{{ tried.name }}, s</th><th>Failure</th></tr></thead><tbody>
{% for w in windows %}<tr><td>{{ w.window }}</td><td class="n">{{ w.rows | short }}</td>
<td class="n">{{ w.served | short }}</td><td class="n">{{ "%.3g" | format(w.seconds[0]) }}</td>
<td class="n">{{ "%.3g" | format(w.seconds[1]) }}</td><td>{{ w.failed or "–" }}</td></tr>
{% endfor %}</tbody></table></div>
<style>
ol.steps { display: flex; flex-wrap: wrap; gap: .5rem; list-style: none; padding: 0; }
ol.steps li { padding: .2rem .8rem; border: 1px solid var(--line); border-radius: 1rem; color: var(--dim); }
ol.steps li.done { color: var(--ok); } ol.steps li.now { color: var(--ink); font-weight: 600; border-width: 2px; }
</style>
"""

_WORDS = {"next": "It goes on.", "end": "It is rolled back.", "wait": "It waits."}


def rollout_report_html(
    look: Look, rollout: Rollout, windows: Sequence[Evidence], *, tried: Version, champion: Version, looks: int
) -> str:
    """Return the page.

    :param rollout: as it was when it was looked at; ``looks`` how many a step may take.
    """
    steps = [
        {"name": step_name(step), "state": "done" if i < rollout.step else "now" if i == rollout.step else "to come"}
        for i, step in enumerate(rollout.steps)
    ]
    share = f", {100 * share_of(rollout.present):.4g} % of ids" if isinstance(rollout.present, dict) else ""
    return render(
        _BODY,
        title=f"Rollout of {tried.name}: {rollout.name.partition(' ')[0]}{share}",
        look=look,
        steps=steps,
        windows=windows,
        tried=tried,
        champion=champion,
        looks=looks,
        words=_WORDS,
        number=lambda value: "–" if value is None else f"{value:.4g}".replace("-", "−"),
    )
