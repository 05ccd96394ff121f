"""An experiment as one self-contained page: the winner, parallel coordinates of all trials, and their table.

Parallel coordinates: Inselberg (1985), "The plane with parallel coordinates", *The Visual Computer* 1, 69-91. One axis
a parameter and one for the score; a trial is a line through its values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from airflow_mlops.ml.experiment_request import told_of
from airflow_mlops.ml.html import render

_WIDTH, _HEIGHT = 1080, 380
_TOP, _BOTTOM, _SIDE = 46, 34, 70
_SHADES = 5
_LOGARITHMIC = 20
"""An axis whose largest value is so many times its smallest is drawn in logarithms."""
_MOST_AXES = 12
_MOST_TICKS = 9
_TEXT = 16

_BODY = """
<style>
.pc path { fill: none; stroke: var(--bar); stroke-width: 1.4; }
.pc .s0 { opacity: .16; } .pc .s1 { opacity: .28; } .pc .s2 { opacity: .42; } .pc .s3 { opacity: .6; }
.pc .s4 { opacity: .85; }
.pc path.best { stroke: var(--ok); stroke-width: 4; opacity: 1; }
.pc path:hover { stroke: var(--ink); stroke-width: 4; opacity: 1; }
.pc line { stroke: var(--dim); stroke-width: 1; }
.pc text { fill: var(--dim); font: 12px system-ui, sans-serif; stroke: var(--paper); stroke-width: 4px;
  paint-order: stroke; }
.pc text.name { fill: var(--ink); font-weight: 600; }
tr.best td { background: var(--soft); }
</style>
<p>{{ result.sentence[:1] | upper }}{{ result.sentence[1:] }}.</p>
<p class="dim">{{ facts }}</p>
{% if drawing %}
<h2>Parameters and score</h2>
<div class="scroll">{{ drawing }}</div>
<p class="dim">A line is a trial; the stronger it is, the better its score. The green one is the best.
{% if halving %}A trial that did not go on is drawn with the score of its last rung, made with less of
{{ halving }}.{% endif %}
{% if left_out %}Not drawn, as there is no room: {{ left_out | join(", ") }}.{% endif %}</p>
{% endif %}
<h2>Trials</h2>
<div class="scroll"><table><thead><tr><th class="n">Trial</th>{% if several %}<th>Candidate</th>{% endif %}
{% for name in names %}<th>{{ name }}</th>{% endfor %}{% if halving %}<th class="n">Rung</th>
<th class="n">{{ halving }}</th>{% endif %}<th class="n">{{ metric }}</th><th class="n">Seconds</th>
<th>What came of it</th></tr></thead><tbody>
{% for row in rows %}<tr{% if loop.first and row.state == "finished" %} class="best"{% endif %}>
<td class="n">{{ row.number }}</td>
{% if several %}<td>{{ row.candidate }}</td>{% endif %}
{% for name in names %}<td>{{ row.params[name] | short if name in row.params else "" }}</td>{% endfor %}
{% if halving %}<td class="n">{{ row.rung or "–" }}</td>
<td class="n">{{ "{:,}".format(row.resource.value) if row.resource else "–" }}</td>{% endif %}
<td class="n">{{ row.score | short }}</td><td class="n">{{ "%.2f" | format(row.seconds) }}</td>
<td>{% if row.state == "failed" %}<span class="bad">failed</span>: {{ row.error }}
{% elif row.state == "not run" %}<span class="dim">not run</span>{% elif loop.first %}<span class="ok">best</span>
{% else %}finished{% endif %}</td></tr>
{% endfor %}</tbody></table></div>
{% if asked %}<h2>What asked for it</h2>
<div class="scroll"><table><tbody>{% for name, lines in asked %}<tr><th>{{ name }}</th>
<td>{% for line in lines %}<div>{{ line }}</div>{% endfor %}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
"""


@dataclass(frozen=True)
class _Axis:
    """One axis: what it is called, its ticks (place from 0, at the bottom, to 1; text), and where a value lies."""

    name: str
    ticks: tuple[tuple[float, str], ...]
    places: Mapping[Any, float]


def experiment_report_html(
    plan: Mapping[str, Any], result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, title: str
) -> str:
    """Return the page.

    :param rows: as :func:`airflow_mlops.ml.experiment.table` gives them, the best first.
    """
    names = list(dict.fromkeys(name for row in rows for name in row["params"]))
    several = len(plan["candidates"]) > 1
    resource = plan["rungs"][0]["resource"]
    metric = plan["metric"] or plan["callable"]
    drawing, left_out = _drawing(plan, rows, names, several, metric)
    better = "lower" if plan["direction"] == "minimize" else "higher"
    steps = " → ".join(str(r["trials"]) for r in plan["rungs"])
    facts = [
        f"Strategy {plan['strategy']}" + (f", trials on each rung {steps}" if len(plan["rungs"]) > 1 else ""),
        f"{metric}: {better} is better",
        f"seed {plan['seed']}",
        f"{result['seconds']:,.1f} s of trials, {result['cpu_seconds']:,.1f} s of processor time",
    ]
    if plan["snapshot"]:
        facts.append(f"rows {plan['snapshot']['fingerprint'][:12]}, {plan['snapshot']['rows']:,} of them")
    facts.append(f"experiment {plan['experiment'][:12]}")
    return render(
        _BODY,
        title=title,
        result=result,
        rows=rows,
        names=names,
        several=several,
        metric=metric,
        halving=resource if len(plan["rungs"]) > 1 else None,
        facts="; ".join(facts) + ".",
        drawing=drawing,
        left_out=left_out,
        asked=told_of(plan["asked"] or {}),
    )


def _drawing(
    plan: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], names: Sequence[str], several: bool, metric: str
) -> tuple[Markup | None, list[str]]:
    """The drawing, and the parameters it has no room for; no drawing where no parameter varies."""
    scored = [row for row in rows if row["score"] is not None]
    candidates = [[row["candidate"]] for row in rows]
    columns: list[tuple[str, list[Any], list[Any]]] = []
    if several:
        order = [[c["name"]] for c in plan["candidates"]]
        columns.append(("candidate", [c[0] for c in candidates], [c[0] for c in order]))
    for name in names:
        order = [c["space"].get(name, []) for c in plan["candidates"]]
        values = [row["params"].get(name, _ABSENT) for row in rows]
        columns.append((name, values, [v for one in order for v in one]))
    varied = [c for c in columns if len({_key(v) for v in c[1]}) > 1]
    shown, left_out = varied[: _MOST_AXES - 1], [c[0] for c in varied[_MOST_AXES - 1 :]]
    if not shown or len(scored) < 2:
        return None, []
    axes = [_axis(name, values, order) for name, values, order in shown]
    scores = _axis(metric, [row["score"] for row in scored], [])
    low_is_good = plan["direction"] == "minimize"
    axes.append(_Axis(scores.name, scores.ticks, scores.places))
    step = (_WIDTH - 2 * _SIDE) / (len(axes) - 1)
    xs = [_SIDE + i * step for i in range(len(axes))]
    ranked = sorted(scored, key=lambda r: r["score"] if low_is_good else -r["score"])
    shade = {r["number"]: _SHADES - 1 - (i * _SHADES) // len(ranked) for i, r in enumerate(ranked)}
    best = rows[0]["number"]
    lines = []
    # The best are drawn last, above the others.
    for row in sorted(scored, key=lambda r: (r["number"] == best, shade[r["number"]])):
        values = [*([row["candidate"]] if several else []), *(row["params"].get(n, _ABSENT) for n in names)]
        by_name = dict(zip([c[0] for c in columns], values, strict=True))
        points = [(x, _y(axis.places[_key(by_name[axis.name])])) for x, axis in zip(xs, axes[:-1], strict=False)]
        points.append((xs[-1], _y(axes[-1].places[_key(row["score"])])))
        kind = "best" if row["number"] == best else f"s{shade[row['number']]}"
        told = ", ".join(f"{name}={value}" for name, value in by_name.items() if value is not _ABSENT)
        lines.append(
            Markup('<path class="{k}" d="{d}"><title>trial {n}: {t}: {s:.6g}</title></path>').format(
                k=kind, d=_curve(points), n=row["number"], t=told, s=row["score"]
            )
        )
    drawn = [_axis_svg(axis, x, last=i == len(axes) - 1) for i, (axis, x) in enumerate(zip(axes, xs, strict=True))]
    label = f"Parallel coordinates of {len(scored)} trials over {', '.join(a.name for a in axes)}"
    return (
        Markup('<svg class="pc" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{l}">').format(
            w=_WIDTH, h=_HEIGHT, l=label
        )
        + Markup("").join(lines)
        + Markup("").join(drawn)
        + Markup("</svg>"),
        left_out,
    )


class _Absent:
    def __repr__(self) -> str:
        return "(not set)"


_ABSENT = _Absent()


def _key(value: Any) -> Any:
    """What stands for a value in a mapping: lists and mappings have no hash, and 1 is not True."""
    return value if value is _ABSENT else (type(value).__name__ in ("bool", "NoneType"), repr(value))


def _axis(name: str, values: Sequence[Any], order: Sequence[Any]) -> _Axis:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    absent = any(v is _ABSENT for v in values)
    if numbers and len(numbers) == sum(v is not _ABSENT for v in values):
        low, high = min(numbers), max(numbers)
        log = low > 0 and high / low >= _LOGARITHMIC
        scale = math.log if log else float
        # What has no such parameter lies below the axis' numbers.
        floor = 0.12 if absent else 0.0
        span = scale(high) - scale(low)
        places = {_key(v): floor + (1 - floor) * ((scale(v) - scale(low)) / span if span else 0.5) for v in numbers}
        ticks = _ticks([(places[_key(v)], f"{v:.4g}") for v in sorted(set(numbers))], low, high, floor, log)
    else:
        kinds = dict.fromkeys(_key(v) for v in (*order, *values) if v is not _ABSENT)
        used = {_key(v): v for v in values if v is not _ABSENT}
        listed = [k for k in kinds if k in used]
        first = 1 if absent else 0
        steps = max(len(listed) + first - 1, 1)
        places = {k: (i + first) / steps for i, k in enumerate(listed)}
        ticks = [(place, _short(used[k])) for k, place in places.items()]
    if absent:
        places, ticks = {**places, _ABSENT: 0.0}, [(0.0, "not set"), *ticks]
    return _Axis(name, tuple(ticks), places)


def _ticks(exact: list[tuple[float, str]], low: float, high: float, floor: float, log: bool) -> list[tuple[float, str]]:
    """The values themselves where they are few and apart, else even steps."""
    far = all(b[0] - a[0] > 0.06 for a, b in itertools.pairwise(exact))
    if len(exact) <= _MOST_TICKS and far:
        return exact
    made = []
    for i in range(5):
        share = i / 4
        value = low * (high / low) ** share if log else low + (high - low) * share
        made.append((floor + (1 - floor) * share, f"{value:.4g}"))
    return made


def _y(place: float) -> float:
    return _TOP + (1 - place) * (_HEIGHT - _TOP - _BOTTOM)


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """A smooth line, level at each axis, so that lines through one tick can be followed."""
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        bend = (x1 - x0) * 0.4
        path += f"C{x0 + bend:.1f},{y0:.1f} {x1 - bend:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"
    return path


def _axis_svg(axis: _Axis, x: float, *, last: bool) -> Markup:
    side, anchor = (6, "start") if last else (-6, "end")
    parts = [
        Markup('<line x1="{x:.1f}" x2="{x:.1f}" y1="{a}" y2="{b}"/>').format(x=x, a=_TOP, b=_HEIGHT - _BOTTOM),
        Markup('<text class="name" x="{x:.1f}" y="{y}" text-anchor="middle">{n}</text>').format(
            x=x, y=_TOP - 18, n=_short(axis.name, 24)
        ),
    ]
    for place, text in axis.ticks:
        parts.append(
            Markup('<text x="{x:.1f}" y="{y:.1f}" text-anchor="{a}">{t}</text>').format(
                x=x + side, y=_y(place) + 4, a=anchor, t=_short(text)
            )
        )
    return Markup("").join(parts)


def _short(value: Any, most: int = _TEXT) -> str:
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"
