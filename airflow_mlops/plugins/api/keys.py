"""The keys of a fleet: what became of each in a training, what serves it, and how the metrics are spread over them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from airflow_mlops.plugins.api.live import run_link
from airflow_mlops.plugins.api.models import KeyRow, Keys, SpreadMark, StateMark, Tone, TrainingMark
from airflow_mlops.plugins.api.rows import report_link, window_mark

if TYPE_CHECKING:
    from airflow_mlops.plugins.api.one import One
    from airflow_mlops.plugins.api.reader import StoreReader
    from airflow_mlops.registry.fleet_runs import FleetRun

TONES: dict[str, Tone] = {
    "promoted": "ok",
    "passed": "ok",
    "no_baseline": "ok",
    "rejected": "bad",
    "inconclusive": "warning",
    "failed": "bad",
    "fallback": "info",
}


def keys(
    one: One,
    reader: StoreReader,
    *,
    run_id: str | None = None,
    search: str = "",
    states: Collection[str] = (),
    alarmed: bool = False,
    sort: str = "key",
    descending: bool = False,
    limit: int = 50,
    offset: int = 0,
) -> Keys:
    """One page of the keys.

    :param run_id: tell what this run of ``__train`` came to, and its keys alone; default: the newest training that was
        no rehearsal, and every key that has a model.
    :raises HTTPException: 404: there was no such training.
    """
    # Parquet, and what reads it, come into the server with the first page of a fleet.
    from airflow_mlops.ml.fleet.alarms import read_alarms
    from airflow_mlops.ml.fleet.keys_table import alarms_of, key_table, metrics_of, pick, spreads, states_of
    from airflow_mlops.ml.fleet.result import WORDS
    from airflow_mlops.registry.overview import models

    run = _run(one, run_id)
    now = run_id is None
    digest = ((run.all_keys if now else None) or run.table) if run else None
    alarms = _alarms(one) if now else {}
    mark = (one.name, digest, one.records.seq if now else None, *alarms.items())

    def make() -> tuple[Any, Any]:
        known = {name: read_alarms(one.store, found) for name, found in alarms.items()}
        made = key_table(one.store, digest, models(one.store, one.name) if now else None, known)
        return made, spreads(made)

    table, spread = reader.once(mark, make)
    total, offset, rows = pick(
        table,
        search=search,
        states=states,
        alarmed=alarmed,
        sort=sort,
        descending=descending,
        offset=offset,
        limit=limit,
    )
    tally = states_of(table)
    order = [*WORDS, *sorted(tally.keys() - WORDS.keys())]
    names = metrics_of(table)
    return Keys(
        training=_training(one, run) if run else None,
        states=[
            StateMark(state=state, words=WORDS.get(state, state), tone=tone_of(state), keys=tally[state])
            for state in order
            if tally.get(state)
        ],
        alarmed=alarms_of(table),
        metrics=names,
        spreads=[
            SpreadMark(
                metric=s.metric,
                keys=s.keys,
                low=s.quartiles[0],
                middle=s.quartiles[1],
                high=s.quartiles[2],
                edges=s.edges,
                tally=s.tally,
            )
            for s in spread
        ],
        total=total,
        offset=offset,
        limit=limit,
        rows=[_row(row, names) for row in rows],
    )


def tone_of(state: str) -> Tone:
    """How a key's state is coloured."""
    return TONES.get(state, "unknown")


def of_run(one: One, dag_id: str, run_id: str) -> FleetRun | None:
    """What a run of the fleet came to; ``None``: it trained nothing, or has not been judged."""
    return next((r for r in reversed(one.records.runs) if (r.dag_id, r.run_id) == (dag_id, run_id)), None)


def _run(one: One, run_id: str | None) -> FleetRun | None:
    if run_id is None:
        return one.records.trainings[-1] if one.records.trainings else None
    run = of_run(one, f"{one.name}__train", run_id)
    if run is None:
        raise HTTPException(404, f"Nothing is known of the fleet's run {run_id}.")
    return run


def _alarms(one: One) -> dict[str, str]:
    """Of the newest check of each name, the digest of the keys that it alarms about."""
    newest = {check.name: check.result.get("alarms") for check in one.records.checks if "verdict" in check.result}
    return {name: digest for name, digest in newest.items() if isinstance(digest, str)}


def _training(one: One, run: FleetRun) -> TrainingMark:
    known = one.live.may_read(run.dag_id)
    return TrainingMark(
        run_id=run.run_id,
        at=run.at,
        sentence=run.sentence,
        tests=run.tests,
        limit=run.limit if run.tests else None,
        window=window_mark(run.window),
        link=run_link(run.dag_id, run.run_id) if known else None,
        report=report_link(run.dag_id, run.report) if known else None,
    )


def _row(row: dict[str, Any], metrics: list[str]) -> KeyRow:
    scores = {
        field: {name: row[f"{field}:{name}"] for name in metrics if row.get(f"{field}:{name}") is not None}
        for field in ("metric", "champion")
    }
    same = ("key", "state", "version", "champion", "serving", "versions", "served_by", "train_rows", "holdout_rows")
    return KeyRow(
        **{name: row[name] for name in same},
        tone=tone_of(row["state"]),
        reason=row["reason"] or "",
        decided_in=row["decided_in"],
        alarms=row["alarms"],
        p_value=row["p_value"],
        metrics=scores["metric"],
        champion_metrics=scores["champion"],
    )
