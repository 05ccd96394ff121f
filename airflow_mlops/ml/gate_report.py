"""The gates' outcome as one self-contained page: no scripts, nothing loaded from elsewhere, everything escaped."""

from __future__ import annotations

import math
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.gates import GateReport, GateResult
from airflow_mlops.ml.serving_gate import told_environment

_WIDTH = 180

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --fg: #1b1f24; --bg: #fff; --line: #d5dae0; --dim: #5b6570;
  --passed: #1a7f37; --rejected: #cf222e; --inconclusive: #9a6700; --no_baseline: #0969da; }
@media (prefers-color-scheme: dark) { :root { --fg: #e6edf3; --bg: #14181d; --line: #39424c; --dim: #9aa5b1;
  --passed: #3fb950; --rejected: #f85149; --inconclusive: #d29922; --no_baseline: #58a6ff; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg); margin: 2rem auto;
  max-width: 70rem; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); }
th { overflow-wrap: normal; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.w { white-space: nowrap; }
.banner { border-left: .4rem solid; padding: .6rem 1rem; }
.dim { color: var(--dim); }
.passed { color: var(--passed); } .rejected { color: var(--rejected); }
.inconclusive { color: var(--inconclusive); } .no_baseline { color: var(--no_baseline); }
.banner p, .banner .dim { color: var(--fg); } b.v { white-space: nowrap; }
svg { display: block; }
</style></head><body>
<h1>{{ title }}</h1>
<div class="banner {{ report.verdict }}"><b>{{ words[report.verdict] }}</b><p>{{ report.sentence }}</p></div>
<p class="dim">{{ "{:,}".format(evaluation.rows) }} holdout rows{% for c, n in evaluation.counts.items() %}{{ ", " }}
{{- "{:,}".format(n) }} of class {{ c }}{% endfor %}.
{% if report.holdout %}This holdout has decided {{ report.holdout.decided }} of {{ report.holdout.limit }} times
{%- if report.holdout.share %};
{{ "%.2g" | format(100 * report.holdout.share) }} % of each comparison's error probability {{ "is" if report.holdout.use
else "was" }} spent on {{ "this decision" if report.holdout.use else "the last one" }}{% endif %}.{% endif %}
{% if evaluation.block_count %}
Rows of one block may depend on each other: intervals stand on {{ "{:,}".format(evaluation.block_count[0]) }}
{{ evaluation.blocks or "blocks" }}.
{% endif %}
{% if evaluation.reference %}
Losses are counted from v{{ evaluation.reference.version }}
{%- if evaluation.reference.since %}, champion since {{ evaluation.reference.since[:10] }}{% endif %}
{%- if evaluation.reference.problem %}, which cannot be scored on these rows: {{ evaluation.reference.problem }}
{%- endif %}.
{% endif %}</p>
<h2>Gates</h2>
{% if report.results %}<table><thead><tr><th>Gate</th><th>Verdict</th><th class="n">Value</th><th class="n">Limit</th>
<th>Interval</th><th>In words</th></tr></thead><tbody>
{% for r in report.results %}<tr><td>{{ r.name }}</td><td><b class="v {{ r.verdict }}">{{ words[r.verdict] }}</b></td>
<td class="n">{{ number(r.value) }}</td><td class="n">{{ number(r.threshold) }}</td><td>{{ bar(r) }}</td>
<td>{{ r.sentence }}</td></tr>
{% endfor %}</tbody></table>
<p class="dim">The interval of a comparison shows candidate minus the other version, positive is better, the thin line
no difference; other intervals show the value itself. The dashed line is the limit.</p>
{% else %}<p>No gates are configured.</p>{% endif %}
<h2>Metrics on the holdout</h2>
<table><thead><tr><th>Metric</th><th>Better</th><th class="n">Candidate</th><th class="n">95 % interval</th>
<th class="n">Champion</th><th class="n">95 % interval</th></tr></thead><tbody>
{% for m in evaluation.metrics %}<tr><td>{{ m.name }}</td><td>{{ "lower" if m.lower_is_better else "higher" }}</td>
<td class="n">{{ number(m.candidate) }}</td>
<td class="n">{{ number(m.candidate_low) }} … {{ number(m.candidate_high) }}</td>
<td class="n">{{ number(m.champion) }}</td>
<td class="n">{{ number(m.champion_low) }} … {{ number(m.champion_high) }}</td></tr>
{% endfor %}</tbody></table>
{% for r in report.results if r.slices or r.slices_too_small or r.slices_missing %}
<h2>Slices: {{ r.name }}</h2>
<table><thead><tr><th>Slice</th><th class="n">Rows</th><th class="n">Value</th><th class="n">Interval</th>
<th>Verdict</th></tr></thead><tbody>
{% for s in r.slices %}<tr><td>{{ s.column }} = {{ s.value_of }}</td><td class="n">{{ "{:,}".format(s.rows) }}</td>
<td class="n">{{ number(s.value) }}</td><td class="n">{{ number(s.low) }} … {{ number(s.high) }}</td>
<td><b class="v {{ s.verdict }}">{{ words[s.verdict] }}</b>{% if s.why %}: {{ s.why }}{% endif %}</td></tr>
{% endfor %}</tbody></table>
<p class="dim">Intervals are those of all slices together.
{% if r.slices_too_small %}{{ r.slices_too_small }} smaller
{{ "slice was" if r.slices_too_small == 1 else "slices were" }} not judged.{% endif %}
{% if r.slices_missing %}Known from training and not in the holdout: {{ r.slices_missing | join(", ") }}.{% endif %}</p>
{% endfor %}
{% for r in report.results if r.behaviours and r.behaviours.cases %}
<h2>Behaviours that do not hold: {{ r.behaviours.file }}</h2>
<table><thead><tr><th>Line</th><th>Kind</th><th>Behaviour</th><th class="n">Rows</th><th class="n">Hold</th>
<th>Example</th></tr></thead><tbody>
{% for c in r.behaviours.cases %}<tr><td class="n">{{ c.line }}</td><td class="w">{{ c.kind }}</td><td>{{ c.name }}</td>
<td class="n">{{ c.rows }}</td><td class="n">{{ "%.1f" | format(100 * c.share) }} %</td><td>{{ c.told }}</td></tr>
{% endfor %}</tbody></table>
<p class="dim">Digest of the file: {{ r.behaviours.digest[:12] }}</p>
{% endfor %}
{% for r in report.results if r.serving %}
<h2>Serving, in a fresh process</h2>
<table><tbody>{% for label, value in serving(r.serving) %}<tr><th>{{ label }}</th><td>{{ value }}</td></tr>
{% endfor %}</tbody></table>
{% endfor %}
</body></html>
"""

_WORDS = {
    "passed": "Passed",
    "rejected": "Rejected",
    "inconclusive": "Inconclusive",
    "no_baseline": "No champion to compare with",
}


def gate_report_html(report: GateReport, evaluation: Evaluation, *, title: str = "Gate report") -> str:
    """Return the page; verdict, gates with their intervals, metrics of both models, slices, serving."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_PAGE).render(
        title=title,
        report=report,
        evaluation=evaluation,
        words=_WORDS,
        number=_number,
        bar=_bar,
        serving=_serving_rows,
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}".replace("-", "−") if abs(value) < 1e6 else f"{value:.4g}"


def _bar(result: GateResult) -> Markup:
    """The interval of a comparison, with its limit and zero, as a small drawing."""
    low, high, value, limit = result.low, result.high, result.value, result.threshold
    if low is None or high is None or value is None or limit is None or not math.isfinite(limit):
        return Markup("")
    compared = "versus" in result.gate
    origin = 0.0 if compared else limit
    left, right = min(low, limit, origin), max(high, limit, origin)
    pad = 0.08 * ((right - left) or 1.0)
    left, right = left - pad, right + pad

    def x(at: float) -> str:
        return f"{_WIDTH * (at - left) / (right - left):.1f}"

    label = f"{_number(low)} to {_number(high)}, limit {_number(limit)}"
    return Markup(
        '<svg class="{c}" width="{w}" height="24" viewBox="0 0 {w} 24" role="img" aria-label="{label}">'
        '<line x1="{zero}" x2="{zero}" y1="3" y2="21" stroke="var(--dim)" stroke-width="1"/>'
        '<line x1="{limit}" x2="{limit}" y1="1" y2="23" stroke="var(--fg)" stroke-width="1.5" stroke-dasharray="3 2"/>'
        '<line x1="{low}" x2="{high}" y1="12" y2="12" stroke="currentColor" stroke-width="4"/>'
        '<circle cx="{value}" cy="12" r="5" fill="currentColor"/></svg>'
    ).format(
        c=result.verdict,
        w=_WIDTH,
        label=label,
        zero=x(origin),
        limit=x(limit),
        low=x(low),
        high=x(high),
        value=x(value),
    )


def _serving_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    if result.get("error"):
        return [("Failed", str(result["error"]))]
    return [
        ("Rows asked, one by one", str(result["rows"])),
        ("Median", f"{result['p50_ms']:.3g} ms"),
        ("95th percentile", f"{result['p95_ms']:.3g} ms"),
        (f"In one batch of {result['batch_rows']:,}", f"{result['rows_per_second']:,.0f} rows/s"),
        ("Peak memory of the process", f"{result['memory_mb']:,.0f} MB"),
        ("Loading", f"{result['load_ms']:.4g} ms"),
        ("Model file", f"{result['size_mb']:.3g} MB"),
        ("Same predictions as in training", "yes" if result["equal"] else "no"),
        ("Environment of training", told_environment(result["environment"])),
    ]
