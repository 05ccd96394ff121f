"""The picture to a drift decision: our verdict on top, Evidently's distributions below, in one HTML file.

Evidently draws, it does not decide: it works on a sample, and its scores have no correction. The file
loads nothing from anywhere, and a browser is told not to.
"""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd

from airflow_mlops.ml.drift import TOGETHER, ColumnDrift, DriftReport
from airflow_mlops.ml.drift_evidently import TOO_CLOSE, Pair, as_texts, binned, run
from airflow_mlops.ml.drift_values import NUMBER_KINDS, core, to_numbers

SAMPLE_ROWS = 20_000
_SHOWN_CATEGORIES = 30
_OTHER = "(other)"

# The second lock after escaping: whatever a value might smuggle in can load and send nothing.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; worker-src blob:"
)
_HEAD = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
_STYLE = """<style>
.mlops{font:14px/1.5 system-ui,sans-serif;color:#1b1f24;background:#fff;max-width:1100px;margin:0 auto;padding:24px}
.mlops h1{font-size:20px;margin:0 0 4px}.mlops p{margin:4px 0}.mlops small{color:#59636e}
.mlops table{border-collapse:collapse;margin-top:12px;width:100%}
.mlops th,.mlops td{border-bottom:1px solid #d1d9e0;padding:4px 10px 4px 0;text-align:left;vertical-align:top}
.mlops .yes{color:#b3261e;font-weight:600}
</style>"""


def drift_html(reference: pd.DataFrame, current: pd.DataFrame, report: DriftReport, *, seed: int) -> bytes:
    """Draw the columns of ``report`` and return a self-contained HTML page (about 4 MB), UTF-8.

    :param reference: the frames that :func:`~airflow_mlops.ml.drift.check_drift` compared.
    :param seed: draws the sample of at most 20,000 rows a side; the same input gives the same bytes.

    Numbers are drawn within the fence that the decision uses, and the 30 most frequent categories by
    name. Columns without values on a side are named above and not drawn.
    """
    sides = [_sample(frame, seed + i) for i, frame in enumerate((reference, current))]
    drawn: dict[str, Pair] = {}
    left_out: list[str] = []
    too_close: list[str] = []
    for column in report.columns:
        name = column.name
        if name == TOGETHER:
            continue
        if name not in current or reference[name].isna().all() or current[name].isna().all():
            left_out.append(name)
            continue
        draw = _numbers if column.kind in NUMBER_KINDS else _categories
        ref, cur = draw(sides[0][name], sides[1][name], column.kind)
        # The threshold makes Evidently's headline repeat our verdict; without a correction over columns it has
        # none to add.
        kind, threshold = "number" if column.kind in NUMBER_KINDS else "category", 0.0 if column.drifted else 1e9
        pair = Pair(kind, ref, cur, threshold)
        if not (ref.notna().any() and cur.notna().any()):
            left_out.append(name)
        elif not binned(pair):
            too_close.append(name)
        else:
            drawn[_safe(name)] = pair
    undrawn = {"a side has no values": left_out, TOO_CLOSE: too_close}
    header = _header(report, undrawn, [len(side) for side in sides])
    if not drawn:
        title = "<!DOCTYPE html><html lang='en'><head><meta charset='UTF-8'><title>Drift</title>"
        return f"{title}{_HEAD}</head><body>{header}</body></html>".encode()
    page = _evidently(drawn)
    page = page.replace("<head>", f"<head>{_HEAD}", 1)
    return page.replace("<body>", f"<body>{header}", 1).encode()


def _evidently(drawn: dict[str, Pair]) -> str:
    page: str = run(drawn).get_html_str(as_iframe=False)
    # Its random element ids become counted ones, so that one input gives one report.
    numbers: dict[str, str] = {}
    page = re.sub(
        r'(?<=metric_)[0-9a-f]{32}|(?<="id": ")[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=")',
        lambda found: numbers.setdefault(found[0], f"{len(numbers):032x}"),
        page,
    )
    return re.sub(r"<script\b[^>]*\bsrc\s*=[^>]*>\s*</script>|<link\b[^>]*\bhref\s*=\s*[\"']?https?:[^>]*>", "", page)


def _sample(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    if len(frame) <= SAMPLE_ROWS:
        return frame
    rows = np.random.default_rng(seed).choice(len(frame), SAMPLE_ROWS, replace=False)
    return frame.iloc[np.sort(rows)]


def _safe(text: str) -> str:
    """Evidently writes texts into a script unescaped; without ``<`` none can end it."""
    return text.replace("<", "‹").replace(">", "›")


def _numbers(ref: pd.Series, cur: pd.Series, kind: str) -> tuple[pd.Series, pd.Series]:
    sides = [to_numbers(side, kind) for side in (ref, cur)]
    known = np.sort(sides[0][~np.isnan(sides[0])])
    if len(known):
        low, high = core(known)
        # A constant reference has no range of its own: the current side's decides about the picture.
        if high <= low:
            other = np.sort(sides[1][~np.isnan(sides[1])])
            ends = core(other) if len(other) else (low, high)
            low, high = min(low, ends[0]), max(high, ends[1])
        sides = [np.clip(side, low - (high - low), high + (high - low)) for side in sides]
    return pd.Series(sides[0]), pd.Series(sides[1])


def _categories(ref: pd.Series, cur: pd.Series, kind: str) -> tuple[pd.Series, pd.Series]:
    texts = [as_texts(side, kind).map(_safe, na_action="ignore") for side in (ref, cur)]
    counts = pd.concat(texts).value_counts()
    if len(counts) <= _SHOWN_CATEGORIES + 1:
        return texts[0], texts[1]
    named = set(counts.index[:_SHOWN_CATEGORIES])
    first, second = (t.where(t.isin(named) | t.isna(), _OTHER) for t in texts)
    return first, second


def _why(column: ColumnDrift) -> str:
    return re.sub("^(drifted|no drift), ", "", column.sentence.removeprefix(f"{column.name}: "))


def _header(report: DriftReport, undrawn: dict[str, list[str]], drawn_rows: list[int]) -> str:
    verdict = {"drift": "Drift", "no_drift": "No drift", "not_enough_data": "Not enough data"}[report.verdict]
    notes = [f"Decided on {report.rows[0]:,} reference and {report.rows[1]:,} current rows."]
    if report.columns:
        notes.append(
            f"The pictures below, by Evidently, show {drawn_rows[0]:,} and {drawn_rows[1]:,} of them and repeat this "
            "verdict; the scores there are Evidently's."
        )
    notes += [f"Not drawn, because {why}: {', '.join(names)}." for why, names in undrawn.items() if names]
    rows = "".join(
        f"<tr><td>{html.escape(c.name)}</td><td>{html.escape(c.kind)}</td>"
        f"<td class='{'yes' if c.drifted else 'no'}'>{'drift' if c.drifted else 'no drift'}</td>"
        f"<td>{html.escape(_why(c))}</td></tr>"
        for c in sorted(report.columns, key=lambda c: (not c.drifted, c.p_value or 0.0, -c.effect))
    )
    head = "<tr><th>Column</th><th>Kind</th><th>Verdict</th><th>Why</th></tr>"
    table = f"<table>{head}{rows}</table>" if rows else ""
    return (
        f"{_STYLE}<div class='mlops'><h1>{verdict}</h1><p>{html.escape(report.sentence)}</p>"
        f"<p><small>{html.escape(' '.join(notes))}</small></p>{table}</div>"
    )
