"""Versions of a pipeline, and two of them side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from airflow_mlops.config.catalogue import catalogue
from airflow_mlops.ml.standing import window_of
from airflow_mlops.plugins.api.live import run_link
from airflow_mlops.plugins.api.models import (
    Comparison,
    FactPair,
    MetricPair,
    Score,
    Side,
    SlicePair,
    VersionRow,
    Versions,
)
from airflow_mlops.plugins.api.one import One
from airflow_mlops.plugins.api.rows import gate_lines, verdict_tone, window_mark
from airflow_mlops.registry.compare import differences
from airflow_mlops.registry.provenance import bare
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.version import Version

if TYPE_CHECKING:
    from airflow_mlops.registry.fleet_runs import FleetRun

MOST = 500
ALIASES = ("champion", "challenger", "latest")


def versions(one: One, key: str | None = None) -> Versions:
    """The versions of one model, the newest first, at most 500."""
    verdicts: dict[int, dict[str, Any]] = {}
    for said, note in one.records.notes("gates"):
        if said.key == key:
            verdicts[said.payload["version"]] = note
    registered = {e.payload["version"]: e for e in one.records.log if e.type == "register" and e.key == key}
    rows = []
    for version in reversed(Registry(one.store, one.name).versions(key)[-MOST:]):
        note, entry = verdicts.get(version.number, {}), registered.get(version.number)
        record = entry.payload["record"] if entry else {}
        run = record.get("run") or {}
        known = run.get("run_id") and one.live.may_read(str(run.get("dag_id")))
        rows.append(
            VersionRow(
                version=version.number,
                status=version.status,
                registered_at=version.registered_at,
                promoted_at=version.promoted_at,
                metrics=version.metrics,
                verdict=note.get("verdict"),
                tone=verdict_tone(note.get("verdict")),
                sentence=str(note.get("sentence") or ""),
                window=window_mark(window_of(entry)) if entry else None,
                rows=(record.get("snapshot") or {}).get("rows"),
                tags=version.tags,
                link=run_link(run["dag_id"], run["run_id"]) if known else None,
            )
        )
    return Versions(key=key, versions=rows)


def comparison(one: One, a: str, b: str, key: str | None = None, runs: Sequence[FleetRun] = ()) -> Comparison:
    """Two versions side by side.

    :param a: a number, or ``champion``, ``challenger`` or ``latest``; ``b`` too.
    :param runs: the trainings of a fleet, whose tables have what a key's versions were compared with.
    :raises HTTPException: 404: there is no such version.
    """
    one_side, other = one.version(number_of(one, a, key), key), one.version(number_of(one, b, key), key)
    mine, theirs = (_evaluation(one, version, runs) for version in (one_side, other))
    metrics, note = _metrics(one_side.number, other.number, mine, theirs)
    return Comparison(
        a=_side(one_side, mine),
        b=_side(other, theirs),
        note=note,
        metrics=metrics,
        slices=_slices(one_side, other),
        facts=[*_sizes(one_side, other), *_differences(one, one_side, other)],
    )


def number_of(one: One, text: str, key: str | None) -> int:
    """The number that an alias stands for.

    :raises HTTPException: 404: nothing does.
    """
    # Of a fleet, records hold the newest versions alone: the registry knows all.
    found = Registry(one.store, one.name).versions(key)
    count = len(found)
    numbers = {v.status: v.number for v in found if v.status in ALIASES} | {"latest": count or None}
    number = numbers.get(text) if text in ALIASES else int(text)
    if number is None or not 1 <= number <= count:
        raise HTTPException(404, f"{one.name} has no {text if text in ALIASES else f'version {text}'}.")
    return number


def _last(version: Version, kind: str) -> dict[str, Any]:
    notes = version.notes.get(kind)
    return notes[-1] if notes else {}


def _evaluation(one: One, version: Version, runs: Sequence[FleetRun]) -> dict[str, Any]:
    """What was measured of a version, as the note ``evaluation`` has it; of a fleet it is told from the records.

    A fleet leaves no such note beside each of its models: its own scores are in the version's record, and those of the
    champion that it was compared with in the table of its training.
    """
    if (note := _last(version, "evaluation")) or version.key is None or not version.record.get("metrics"):
        return note
    of = version.record.get("run") or {}
    run = next((r for r in reversed(runs) if (r.dag_id, r.run_id) == (of.get("dag_id"), of.get("run_id"))), None)
    row = None
    if run is not None:
        # Parquet, and what reads it, come into the server with the first page of a fleet.
        from airflow_mlops.ml.fleet.carried import read_key

        row = read_key(one.store, run.table, version.key)
    if row is None or row["version"] != version.number:
        row = {}
    known = catalogue()["metrics"]
    measured = {
        name: {
            "candidate": value,
            "champion": row.get(f"champion:{name}"),
            "lower_is_better": name in known and known[name]["lower_is_better"],
        }
        for name, value in version.record["metrics"].items()
    }
    # Where the champion could not be asked, nothing was compared with it.
    compared = any(metric["champion"] is not None for metric in measured.values())
    rows = (version.record.get("rows") or {}).get("holdout", 0)
    return {"metrics": measured, "rows": rows, "champion": row["champion"] if compared else None}


def _side(version: Version, evaluation: dict[str, Any]) -> Side:
    gates = _last(version, "gates")
    return Side(
        version=version.number,
        status=version.status,
        registered_at=version.registered_at,
        verdict=gates.get("verdict"),
        sentence=str(gates.get("sentence") or ""),
        gates=gate_lines(gates),
        against=evaluation.get("champion"),
    )


# --- metrics and slices ------------------------------------------------------------------------------


def _metrics(a: int, b: int, mine: dict[str, Any], theirs: dict[str, Any]) -> tuple[list[MetricPair], str]:
    """Metrics of both, from one holdout where there is one; and how far they can be compared."""
    if not mine and not theirs:
        return [], "neither version was evaluated here"
    if mine.get("champion") == b:
        note = f"both were measured on the same {mine.get('rows', 0):,} holdout rows, when v{a} was judged"
        return [*_pairs(mine, "candidate", mine, "champion", same=True)], note
    if theirs.get("champion") == a:
        note = f"both were measured on the same {theirs.get('rows', 0):,} holdout rows, when v{b} was judged"
        return [*_pairs(theirs, "champion", theirs, "candidate", same=True)], note
    if mine and theirs and mine.get("holdout") and mine.get("holdout") == theirs.get("holdout"):
        note = f"both were measured on the same {mine.get('rows', 0):,} holdout rows"
        return [*_pairs(mine, "candidate", theirs, "candidate", same=True)], note
    note = "each was measured on the holdout of its own training: a difference can come from the rows"
    return [*_pairs(mine, "candidate", theirs, "candidate", same=False)], note


def _pairs(
    mine: dict[str, Any], as_mine: str, theirs: dict[str, Any], as_theirs: str, *, same: bool
) -> Iterator[MetricPair]:
    of_a, of_b = mine.get("metrics") or {}, theirs.get("metrics") or {}
    for name in sorted({*of_a, *of_b}):
        known = of_a.get(name) or of_b[name]
        yield MetricPair(
            name=name,
            lower_is_better=bool(known.get("lower_is_better")),
            a=_score(of_a.get(name), as_mine),
            b=_score(of_b.get(name), as_theirs),
            same_rows=same,
        )


def _score(metric: dict[str, Any] | None, who: str) -> Score | None:
    if metric is None or metric.get(who) is None:
        return None
    return Score(value=metric[who], low=metric.get(f"{who}_low"), high=metric.get(f"{who}_high"))


def _slices(a: Version, b: Version) -> list[SlicePair]:
    of_a, of_b = _parts(a), _parts(b)
    return [_slice(place, of_a.get(place), of_b.get(place)) for place in dict.fromkeys((*of_a, *of_b))]


def _parts(version: Version) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {
        (str(line.get("name", "")), str(part["column"]), str(part["value_of"])): part
        for line in _last(version, "gates").get("results") or ()
        for part in line.get("slices") or ()
    }


def _slice(place: tuple[str, str, str], a: dict[str, Any] | None, b: dict[str, Any] | None) -> SlicePair:
    def score(part: dict[str, Any] | None) -> Score | None:
        if part is None or part.get("value") is None:
            return None
        return Score(value=part["value"], low=part.get("low"), high=part.get("high"))

    return SlicePair(
        gate=place[0],
        column=place[1],
        value_of=place[2],
        a=score(a),
        a_rows=a["rows"] if a else None,
        a_verdict=a["verdict"] if a else None,
        b=score(b),
        b_rows=b["rows"] if b else None,
        b_verdict=b["verdict"] if b else None,
    )


# --- sizes and differences ---------------------------------------------------------------------------


def _sizes(a: Version, b: Version) -> list[FactPair]:
    mine, theirs = dict(_size(a)), dict(_size(b))
    return [
        FactPair(
            group="size", name=name, a=mine.get(name), b=theirs.get(name), differs=mine.get(name) != theirs.get(name)
        )
        for name in dict.fromkeys((*mine, *theirs))
    ]


def _size(version: Version) -> Iterator[tuple[str, str]]:
    record = version.record
    rows = record.get("rows") or {}
    if (size := (record.get("model") or {}).get("bytes")) is not None:
        yield "model file", f"{size / 1e6:,.2f} MB"
    if rows.get("train") is not None:
        yield "training rows", f"{rows['train']:,}"
        yield "holdout rows", f"{rows['holdout']:,}"
    if features := (record.get("schema") or {}).get("features"):
        yield "columns read", f"{len(features):,}"
    if record.get("seconds") is not None:
        yield "training time", f"{record['seconds']:,.1f} s"
    for line in _last(version, "gates").get("results") or ():
        serving = line.get("serving") or {}
        for name, field, unit in (("p50", "p50_ms", "ms"), ("p95", "p95_ms", "ms"), ("memory", "memory_mb", "MB")):
            if serving.get(field) is not None:
                yield f"serving {name}", f"{serving[field]:,.1f} {unit}"


def _differences(one: One, a: Version, b: Version) -> Iterator[FactPair]:
    for group, fields in differences(one.store, a, b).items():
        if group == "metrics":
            continue
        for name, (mine, theirs) in fields.items():
            yield FactPair(group=group, name=name, a=_text(mine), b=_text(theirs), differs=True)


def _text(value: Any) -> str | None:
    """A value as text; addresses without what is secret in them."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return bare(text)
