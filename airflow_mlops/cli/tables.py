"""What happened to a pipeline, window by window, as a table for a terminal."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from airflow_mlops.config.harmless import harmless
from airflow_mlops.window import Window

if TYPE_CHECKING:
    from rich.table import Table

NONE = "–"
WIDEST = {"drift": 24, "metric": 16, "retrain": 20, "verdict": 12}
WIDE = 130
"""Characters from which on the reasons fit beside the other columns."""


@dataclass(frozen=True)
class Row:
    """One window of the table; every field is text as printed."""

    window: str
    rows: str
    drift: str
    champion: str
    metric: str
    retrain: str
    verdict: str
    reason: str


HEADINGS = {
    "window": "window",
    "rows": "rows",
    "drift": "drift",
    "champion": "champion",
    "metric": "its metric",
    "retrain": "retrain because of",
    "verdict": "gates",
    "reason": "reason",
}


def row(checks: Mapping[str, Any]) -> Row:
    """Turn the checks of one window, as :func:`~airflow_mlops.registry.checks.read_checks` returns them, into a row."""
    prediction, drift = checks.get("prediction") or {}, checks.get("drift") or {}
    performance, gates = checks.get("performance") or {}, checks.get("gates") or checks.get("fleet") or {}
    metric = NONE
    if performance.get("value") is not None:
        metric = f"{performance.get('metric', '')} {performance['value']:.3f}".strip()
    elif performance:
        metric = str(performance["verdict"]).replace("_", " ")
    return Row(
        window=short(Window.from_dict(checks["window"])),
        rows=f"{prediction['rows']:,}" if "rows" in prediction else NONE,
        drift=_drift(drift) + _skew(checks.get("skew") or {}),
        champion=_champion(prediction),
        metric=metric,
        retrain=_retrain(checks),
        verdict=str(gates["verdict"]).replace("_", " ") if gates else NONE,
        reason=_reason(checks),
    )


def _champion(prediction: Mapping[str, Any]) -> str:
    """Who scored; a fleet's rows are scored by many versions."""
    if prediction.get("version") is not None:
        return f"v{prediction['version']}"
    models = (prediction.get("counts") or {}).get("models")
    return f"{models:,} models" if models else NONE


def key(checks: Mapping[str, Any]) -> str:
    """The window of one window's checks, as in a store key."""
    return Window.from_dict(checks["window"]).key


def short(window: Window) -> str:
    """``2013-02`` for a whole month, ``2013-02-04`` for a day, else both ends."""
    start, end = window.start, window.end
    if (
        str(start) == start.strftime("%Y-%m-01")
        and (end.year * 12 + end.month) - (start.year * 12 + start.month) == 1
        and end.day == 1
    ):
        return start.strftime("%Y-%m")
    if (end - start).days == 1 and len(str(start)) == 10:
        return str(start)
    return str(window)


def _drift(drift: Mapping[str, Any]) -> str:
    if not drift:
        return NONE
    verdict = str(drift["verdict"]).replace("_", " ")
    names = [c["name"] for c in drift.get("columns") or () if c.get("drifted")]
    return f"{verdict}: {', '.join(names)}" if names else verdict


def _skew(skew: Mapping[str, Any]) -> str:
    """Feature skew is told where it was found; a table has no room for its absence."""
    names = [c["name"] for c in skew.get("columns") or () if c.get("skewed")]
    return f"; feature skew: {', '.join(names)}" if names else ""


def _retrain(checks: Mapping[str, Any]) -> str:
    training = checks.get("training") or {}
    if not training.get("go", bool(training)):
        training = {}
    if training:
        reasons = [str(r) for r in training.get("reasons") or ()]
        start = str(training.get("start", "")).replace("_", " ")
        return ", ".join(reasons).replace("_", " ") if start == "retrain" and reasons else start
    asked = checks.get("request") or checks.get("suppressed") or {}
    wanted = asked.get("reasons") or ([asked["start"]] if asked.get("start") else [])
    return f"({', '.join(str(r).replace('_', ' ') for r in wanted)})" if wanted else NONE


def _reason(checks: Mapping[str, Any]) -> str:
    """Why the gates said so and what followed, or why there was no training; then how a rollout went on."""
    decided, rollout = _decided(checks), checks.get("rollout")
    if not rollout:
        return decided
    told = f"v{rollout['version']}, {rollout['sentence']}"
    return told if decided == NONE else f"{decided.rstrip('.')}. {told}"


def _decided(checks: Mapping[str, Any]) -> str:
    if fleet := checks.get("fleet"):
        # What was promoted, where anything was; else what the gates said.
        return str((checks.get("promotion") or fleet)["sentence"])
    if gates := checks.get("gates"):
        promotion = checks.get("promotion")
        after = ""
        if promotion:
            became = "begins its rollout" if promotion.get("step") else "is champion"
            after = f" v{promotion['version']} {became}."
        return f"v{gates['version']}: {_without(gates['sentence'], gates['verdict']).rstrip('.')}.{after}"
    for name in ("suppressed", "request"):
        found = checks.get(name)
        if found and not found.get("go") and not found.get("granted"):
            return _without(found["sentence"], name)
    return NONE


def _without(sentence: str, prefix: str) -> str:
    """Leave out the verdict where a sentence starts with it: it has a column of its own."""
    return sentence.removeprefix(f"{prefix}: ")


def line(found: Row) -> str:
    """One line of progress for a window that has just ended."""
    parts = [found.window, f"{found.rows} rows"]
    if found.champion != NONE:
        parts += [f"champion {found.champion}", found.metric, found.drift]
    parts.append(f"retrain: {found.retrain}")
    if found.verdict != NONE:
        parts.append(f"gates {found.verdict}")
    return "  ".join(parts)


def render(found: Iterable[Row], *, width: int) -> str:
    """Lay the rows out in at most ``width`` (80 or more) characters; where narrow, drift and reason follow."""
    from rich import box
    from rich.table import Table

    rows, wide = list(found), width >= WIDE
    names = [field.name for field in fields(Row) if wide or field.name not in ("drift", "reason")]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:
        table.add_column(
            HEADINGS[name],
            justify="right" if name == "rows" else "left",
            no_wrap=name in ("window", "rows", "champion"),
            max_width=WIDEST.get(name),
        )
    for one in rows:
        table.add_row(*(getattr(one, name) for name in names))
    lines = _printed(table, width)
    if not wide:
        for one in rows:
            indent = " " * (len(one.window) + 2)
            lines += textwrap.wrap(
                f"{one.window}  {one.drift if one.drift != NONE else 'no monitoring'}. {one.reason}",
                max(width, 80),
                subsequent_indent=indent,
            )
    return "\n".join(lines)


def grid(headings: Sequence[str], found: Iterable[Sequence[str]], *, width: int, whole: Collection[str] = ()) -> str:
    """Lay rows of text out under their headings in at most ``width`` (80 or more) characters.

    :param whole: headings of the columns that are never broken; the others wrap.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in headings:
        table.add_column(name, no_wrap=name in whole, overflow="fold")
    for one in found:
        table.add_row(*(harmless(text) for text in one))
    return "\n".join(_printed(table, width))


def _printed(table: Table, width: int) -> list[str]:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=max(width, 80), markup=False, highlight=False, color_system=None).print(table)
    return [text.rstrip() for text in out.getvalue().splitlines()]
