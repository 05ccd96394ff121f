"""The fleet page: every pipeline that the user may see, searched, filtered, sorted, one page at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.plugins.api.attention import LEVELS, urgency
from airflow_mlops.plugins.api.live import live_pipelines
from airflow_mlops.plugins.api.models import FLEET_ROUTE, AttentionCard, AttentionRow, Counts, Fleet
from airflow_mlops.plugins.api.rows import Line, check_tone, line_of, row_of

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

    from airflow_mlops.plugins.api.reader import Answer, StoreReader

Sort = Literal[
    "attention", "pipeline", "owner", "level", "champion", "training", "drift", "performance", "next_run", "approvals",
    "suppressed", "cost",
]  # fmt: skip
Order = Literal["asc", "desc"]

SHOWN = ("action", "warning")
"""What the card names; a fleet that is still being read would fill it with names."""
_TONES = ("bad", "warning", "unknown", "ok", "info")


def _tone(line: Line) -> int | None:
    check = line.known.standing.checks.get("drift") if line.known.standing else None
    return _TONES.index(check_tone(str(check.result["verdict"]))) if check else None


def _promoted(line: Line) -> str | None:
    one = line.known.standing
    return one.champion.at if one and one.champion else line.summary.promoted_at if line.summary else None


def _trained(line: Line) -> str | None:
    one = line.known.standing
    return one.candidate.at if one and one.candidate else None


def _margin(line: Line) -> float | None:
    """How far the last value lies above the one at promotion; below zero: it is worse."""
    trend = line.known.standing.performance if line.known.standing else None
    newest = trend.points[-1].result if trend else {}
    if trend is None or newest.get("baseline") is None:
        return None
    above = float(newest["value"] - newest["baseline"])
    return -above if trend.lower_is_better else above


def _next_run(line: Line) -> datetime | None:
    train = line.known.live.dags.get("train")
    return train.next_run if train and not train.paused else None


def _suppressed(line: Line) -> str | None:
    request = line.known.standing.request if line.known.standing else None
    return str(request["recorded"]) if request and not request["granted"] else None


def _seconds(line: Line) -> float | None:
    cost = line.known.standing.cost if line.known.standing else None
    return float(cost["wall_seconds"]) if cost else None


_KEYS: dict[str, Callable[[Line], Any]] = {
    "attention": lambda line: urgency(line.attention),
    "pipeline": lambda line: line.pipeline,
    "owner": lambda line: line.owner,
    "level": lambda line: line.level,
    "champion": _promoted,
    "training": _trained,
    "drift": _tone,
    "performance": _margin,
    "next_run": _next_run,
    "approvals": lambda line: len(line.known.live.approvals) or None,
    "suppressed": _suppressed,
    "cost": _seconds,
}
"""What a column is sorted by; rows without it stand last, in either direction."""


def fleet(
    user: BaseUser,
    reader: StoreReader,
    *,
    search: str = "",
    attention: Iterable[str] = (),
    levels: Iterable[int] = (),
    owner: str | None = None,
    sort: Sort = "attention",
    order: Order = "asc",
    limit: int = 25,
    offset: int = 0,
) -> Fleet:
    """One page of the fleet, as this user may see it.

    What is not known yet of the page's rows is read now; the rest of the fleet in the background.

    :param search: part of a pipeline's or an owner's name, in any case.
    :param attention: levels of attention; ``levels``: configured levels; empty: all.
    :param offset: of the first row; behind the last page, that one is answered.
    """
    live = live_pipelines(user)
    wanted, only = {*attention}, {*levels}
    deadline = reader.begin()
    marks = {name: one.mark for name, one in live.items() if one.readable}
    summaries, problem = reader.index(deadline)

    def chosen(answer: Answer) -> tuple[list[Line], list[Line]]:
        lines = [line_of(one, answer) for one in live.values()]
        fit = [
            line
            for line in lines
            if (not wanted or line.attention.level in wanted)
            and (not only or line.level in only)
            and (owner is None or line.owner == owner)
            and search.casefold() in f"{line.pipeline}\n{line.owner or ''}".casefold()
        ]
        return lines, _sorted(fit, sort, order)

    answer = reader.known(marks, summaries, problem)
    lines, fit = chosen(answer)
    offset = _begin(len(fit), offset, limit)
    names = [line.pipeline for line in fit[offset : offset + limit] if line.pipeline in marks]
    reader.read(names, marks, summaries, deadline)
    if any(name in answer.pending for name in names):
        answer = reader.known(marks, summaries, problem)
        lines, fit = chosen(answer)
        offset = _begin(len(fit), offset, limit)
    reader.read_later(sorted(answer.pending), marks, summaries)
    return Fleet(
        total=len(fit),
        offset=offset,
        limit=limit,
        counts=_counts(lines),
        owners=sorted({line.owner for line in lines if line.owner}),
        levels=sorted({line.level for line in lines if line.level is not None}),
        pending=len(answer.pending),
        store_problem=answer.problem,
        rows=[row_of(line) for line in fit[offset : offset + limit]],
    )


def attention_card(user: BaseUser, reader: StoreReader, *, limit: int = 5) -> AttentionCard:
    """The pipelines that need something, the most urgent first."""
    live = live_pipelines(user)
    deadline = reader.begin()
    marks = {name: one.mark for name, one in live.items() if one.readable}
    summaries, problem = reader.index(deadline)
    pending = sorted(reader.known(marks, summaries, problem).pending)
    # As many as a page of the fleet; the others follow in the background.
    reader.read(pending[:25], marks, summaries, deadline)
    answer = reader.known(marks, summaries, problem)
    reader.read_later(sorted(answer.pending), marks, summaries)
    lines = _sorted([line_of(one, answer) for one in live.values()], "attention", "asc")
    return AttentionCard(
        counts=_counts(lines),
        rows=[
            AttentionRow(pipeline=line.pipeline, attention=line.attention, link=line.known.page)
            for line in lines
            if line.attention.level in SHOWN
        ][:limit],
        pending=len(answer.pending),
        store_problem=answer.problem,
        link=f"plugin/{FLEET_ROUTE}",
    )


def _begin(total: int, offset: int, limit: int) -> int:
    """Where the page asked for begins; behind the end, where the last one does: fewer may match than before."""
    return offset if offset < total else max(total - 1, 0) // limit * limit


def _sorted(lines: Iterable[Line], sort: Sort, order: Order) -> list[Line]:
    key = _KEYS[sort]
    # By name within equal keys, whichever way the keys go.
    keyed = [(key(line), line) for line in sorted(lines, key=lambda line: line.pipeline)]
    has = [pair for pair in keyed if pair[0] is not None]
    has.sort(key=lambda pair: pair[0], reverse=order == "desc")
    return [line for _, line in has] + [line for value, line in keyed if value is None]


def _counts(lines: Iterable[Line]) -> Counts:
    found = Counter(line.attention.level for line in lines)
    return Counts(**{level: found[level] for level in LEVELS})
