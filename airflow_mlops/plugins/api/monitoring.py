"""Performance and drift over time, from the stored checks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from starlette.exceptions import HTTPException

from airflow_mlops.exceptions import DataNotFound, ObjectNotFound
from airflow_mlops.ml.outputs import is_output
from airflow_mlops.ml.standing import metric_direction, window_of
from airflow_mlops.plugins.api.live import Live
from airflow_mlops.plugins.api.models import (
    Bin,
    ChampionMark,
    Distribution,
    Drift,
    DriftCell,
    DriftColumn,
    DriftWindow,
    Performance,
    PerformancePoint,
    Score,
)
from airflow_mlops.plugins.api.models import Window as WindowMark
from airflow_mlops.plugins.api.one import One
from airflow_mlops.plugins.api.rows import check_mark, check_tone, window_mark
from airflow_mlops.registry.checks import Check
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.records import Records
from airflow_mlops.window import Window

POINTS = 400


def performance(one: One) -> Performance:
    """The measured values by the windows whose outcomes they are of, and when the champion changed."""
    checks = [c for c in one.records.checks if c.name == "performance" and "verdict" in c.result]
    measured = [c for c in checks if c.result.get("value") is not None]
    metric = str(measured[-1].result.get("metric")) if measured else None
    points = [_point(c) for c in checks if c.result.get("metric") in (None, metric)]
    points.sort(key=lambda p: (datetime.fromisoformat(p.window.end), datetime.fromisoformat(p.window.start)))
    return Performance(
        metric=metric,
        lower_is_better=metric_direction(one.records, metric) if metric else False,
        points=points[-POINTS:],
        marks=[*_marks(one.records)],
    )


def _point(check: Check) -> PerformancePoint:
    result = check.result
    verdict, estimate = str(result["verdict"]), result.get("estimate")
    judged = window_mark(result.get("window")) or window_mark(check.window)
    if judged is None:
        raise ValueError(f"a performance check has no window: {check.window!r}")
    return PerformancePoint(
        window=judged,
        value=result.get("value"),
        low=result.get("low"),
        high=result.get("high"),
        baseline=result.get("baseline"),
        rows=result.get("rows"),
        version=result.get("version"),
        verdict=verdict,
        tone=check_tone(verdict),
        sentence=str(result.get("sentence", "")),
        estimate=Score(value=estimate["value"], low=estimate.get("low"), high=estimate.get("high"))
        if estimate and estimate.get("value") is not None
        else None,
    )


def _marks(records: Records) -> Iterator[ChampionMark]:
    for entry in records.log:
        if entry.type not in ("promote", "rollback") or entry.key is not None:
            continue
        body = entry.payload
        window = body.get("window")
        yield ChampionMark(
            at=window["end"] if window else _data_time(records, entry),
            recorded=entry.at,
            version=body["version"],
            what="promoted" if entry.type == "promote" else "rolled back",
            by=body.get("by"),
            reason=body["reason"],
        )


def _data_time(records: Records, entry: Entry) -> str:
    """How far the data had come by then: the end of the newest window that had been checked.

    Before any was: the end of the rows that the version learned from; of one without a window, the clock.
    """
    checked = [c.window["end"] for c in records.checks if c.at and c.at <= entry.at]
    if checked:
        return max(checked)
    learned = window_of(records.versions[entry.key, entry.payload["version"]])
    return learned["end"] if learned else entry.at


def drift(one: One, *, windows: int = 60) -> Drift:
    """Effects per column and window; the columns that drifted most often first.

    :param windows: how many of the newest.
    """
    checks = [c for c in one.records.checks if c.name == "drift" and "verdict" in c.result][-windows:]
    found: dict[str, list[dict[str, Any] | None]] = {}
    for place, check in enumerate(checks):
        for column in check.result.get("columns") or ():
            found.setdefault(str(column["name"]), [None] * len(checks))[place] = column
    columns = [_column(name, cells) for name, cells in found.items()]
    columns.sort(key=lambda c: (-sum(cell.drifted for cell in c.cells if cell), -_largest(c), c.name))
    return Drift(fleet=bool(one.records.batches), windows=[_window(c, one.live) for c in checks], columns=columns)


def distribution(one: One, key: str, column: str) -> Distribution:
    """How a column was spread in training and in one window.

    :param key: the window's, as :class:`~airflow_mlops.plugins.api.models.DriftWindow` has it.
    :raises HTTPException: 404: there is no such window or column, or nothing was kept of it.
    """
    if one.records.batches:
        raise HTTPException(
            404, f"{one.name} is a fleet: each key has a reference of its own. The report names the keys."
        )
    # Loads NumPy and Arrow when somebody first looks at a distribution.
    from airflow_mlops.ml.distributions import spread

    window = next(
        (Window.from_dict(c.window) for c in one.records.checks if Window.from_dict(c.window).key == key), None
    )
    if window is None:
        raise HTTPException(404, f"{one.name} has no checks of the window {key}.")
    try:
        found = spread(one.store, one.name, window, column, private=_private(one.records))
    except (DataNotFound, ObjectNotFound) as e:
        raise HTTPException(404, e.message) from e
    sampled = found.reference_sample < found.reference_rows
    note = f"the reference is drawn from {found.reference_sample:,} of its rows" if sampled else ""
    return Distribution(
        column=found.column,
        kind=found.kind,
        window=WindowMark(**window.to_dict()),
        version=found.version,
        reference_rows=found.reference_rows,
        current_rows=found.current_rows,
        reference_missing=found.reference_missing,
        current_missing=found.current_missing,
        bins=[Bin(label=b.label, low=b.low, high=b.high, reference=b.reference, current=b.current) for b in found.bins],
        note=note,
    )


def _private(records: Records) -> set[str]:
    """Columns that are private by now: by the newest version's file, or by any drift check."""
    newest = next(reversed(records.versions.values()), None)
    data = ((newest.payload["record"].get("config") or {}).get("data") or {}) if newest else {}
    checked = (c.result.get("private") or () for c in records.checks if c.name == "drift")
    return {*(data.get("private") or ()), *(name for names in checked for name in names)}


def _window(check: Check, live: Live) -> DriftWindow:
    mark = check_mark(check, live)
    return DriftWindow(
        key=Window.from_dict(check.window).key,
        window=mark.window,
        verdict=mark.verdict,
        tone=mark.tone,
        sentence=mark.sentence,
        version=mark.version,
        rows=_rows(check.result.get("rows")),
        report=mark.report,
    )


def _rows(rows: Any) -> int | None:
    """Rows of the window; a check that had too few wrote those of both sides."""
    return rows.get("current") if isinstance(rows, dict) else rows


def _column(name: str, cells: list[dict[str, Any] | None]) -> DriftColumn:
    kind = next(str(c.get("kind", "")) for c in cells if c is not None)
    return DriftColumn(
        name=name,
        kind=kind,
        prediction=is_output(name),
        cells=[
            DriftCell(
                effect=c["effect"],
                threshold=c.get("threshold"),
                p_value=c.get("p_value"),
                drifted=bool(c.get("drifted")),
                statistic=str(c.get("statistic", "")),
                sentence=str(c.get("sentence", "")),
            )
            if c is not None
            else None
            for c in cells
        ],
    )


def _largest(column: DriftColumn) -> float:
    # In multiples of its own limit where that is known: effects of two kinds have two units.
    return max((cell.effect / (cell.threshold or 1.0) for cell in column.cells if cell), default=0.0)
