"""Where every pipeline of a store stands, from one small object that readers keep fresh."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

from airflow_mlops.exceptions import ObjectNotFound, StoreError
from airflow_mlops.registry.entry import sealed, unsealed
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.registry.records import stored_pipelines
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.state import State
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """One pipeline's registry.

    :param seq: its last commit, made ``at`` (UTC, ISO 8601) by ``action`` (``promote``, …).
    :param versions: how many there are, of all ``models`` (keys of a fleet; else 1).
    :param champions: how many models have a champion.
    :param champion: the champion's number, promoted at ``promoted_at``, where there is one model; else None.
    """

    pipeline: str
    seq: int
    at: str
    action: str
    versions: int
    models: int
    champions: int
    champion: int | None
    challenger: int | None
    promoted_at: str | None


@dataclass(frozen=True)
class ModelSummary:
    """One model of a fleet: how many versions it has, and its aliases."""

    key: str | None
    versions: int
    champion: int | None
    challenger: int | None


def overview(store: Store) -> list[Summary]:
    """Return a summary of every pipeline that has registered anything, by name.

    Reads the index, asks for each pipeline whether there is a commit after the one the index knows, and
    folds only those that have one. The refreshed index is written for the next reader; a damaged or
    missing one is made anew.

    :raises CorruptObject, StoreUnavailable: as the registries do.
    """
    known = _read(store)
    prefix = layout.names_prefix()
    names = {key.removeprefix(prefix).removesuffix(".json") for key in store.list(prefix)}
    # Without an index, also what the marks may have lost.
    names |= known.keys() if known is not None else set(stored_pipelines(store))
    before = known or {}
    moved = parallel(lambda name: _moved(store, before.get(name), name), sorted(names), store)
    stale = [name for name, news in zip(sorted(names), moved, strict=True) if news]
    fresh = {s.pipeline: s for s in parallel(lambda name: _summary(store, name), stale, store) if s is not None}
    now = before | fresh
    if fresh or known is None:
        _write(store, now)
    return [now[name] for name in sorted(now)]


def models(store: Store, pipeline: str) -> list[ModelSummary]:
    """Return a summary of every model of a pipeline, by key, without reading its versions."""

    def look(state: State) -> list[ModelSummary]:
        return [ModelSummary(m.key, len(m.places), m.champion, m.challenger) for m in state.models.values()]

    return sorted(Registry(store, pipeline).log.view(look), key=lambda m: m.key or "")


def _moved(store: Store, known: Summary | None, pipeline: str) -> bool:
    return known is None or store.exists(layout.log_entry(layout.log_prefix(pipeline), known.seq + 1))


def _summary(store: Store, pipeline: str) -> Summary | None:
    """What the log says; None where nothing was committed."""

    def look(state: State) -> Summary | None:
        if not state.seq:
            return None
        only = state.models.get(None) if len(state.models) == 1 else None
        champion = only.champion if only else None
        return Summary(
            pipeline=pipeline,
            seq=state.seq,
            at=state.at,
            action=state.action,
            versions=state.size,
            models=len(state.models),
            champions=sum(m.champion is not None for m in state.models.values()),
            champion=champion,
            challenger=only.challenger if only else None,
            promoted_at=state.row(only, champion).more["promoted"] if only and champion else None,
        )

    return Registry(store, pipeline).log.view(look)


def _read(store: Store) -> dict[str, Summary] | None:
    try:
        body = unsealed(store.get(layout.index()))
        return {name: Summary(pipeline=name, **row) for name, row in body["pipelines"].items()}
    except ObjectNotFound:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        _logger.warning("the index of %s is unusable, making it anew: %s", store.uri, e)
        return None


def _write(store: Store, summaries: dict[str, Summary]) -> None:
    rows: dict[str, Any] = {name: asdict(s) for name, s in summaries.items()}
    for row in rows.values():
        del row["pipeline"]
    try:
        store.put(layout.index(), sealed({"format": 1, "pipelines": rows}))
    except StoreError as e:
        # Whoever may only read the store sees the same, a little later.
        _logger.warning("could not write the index of %s: %s", store.uri, e)
