"""Drift of what a fleet's models were asked about a window, key by key, against what each learned from."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Drift
from airflow_mlops.exceptions import ObjectNotFound
from airflow_mlops.ml.fleet.alarms import put_alarms
from airflow_mlops.ml.fleet.drift import ALL_KEYS, MOST_ROWS, FleetDrift, Stretch, check_fleet_drift, put_tests
from airflow_mlops.ml.fleet.partition import Log
from airflow_mlops.ml.fleet.reference import read_reference, reference_dependence, reference_kinds
from airflow_mlops.ml.fleet.served import Served
from airflow_mlops.ml.html import render
from airflow_mlops.registry.registry import Registry, Version
from airflow_mlops.registry.released import reference_of
from airflow_mlops.store.base import Store

SHOWN = 200
_TOLD = 10


def fleet_drift(
    store: Store,
    registry: Registry,
    capture: Mapping[str, Any],
    config: Drift,
    *,
    private: Collection[str] = (),
    log: Log,
) -> tuple[dict[str, Any], str]:
    """Compare the captured inputs of each key with the reference of the version that served it.

    Rows that a parent served are left out: a parent has learned from the rows of many keys and serves those of a few,
    which are no sample of them. Predictions are not compared. Of a window of long ago the references may be given up by
    now: their keys are counted as those without one.

    :param private: columns that are left out, beside those private when a version was trained.
    :return: ``{"verdict", "sentence", "rows", "keys", "drifted_keys", "few", "by_parent", "without_reference",
        "columns", "table", "alarms", "private"}`` and the report's page; ``keys`` are those that were compared,
        ``table`` is the digest of their tests (:func:`keep_tests`), ``alarms`` that of the keys that drifted
        (:mod:`airflow_mlops.ml.fleet.alarms`): of all that were compared where all together drifted.
    """
    served = Served(store, capture)
    by_reference: dict[str, list[Version]] = defaultdict(list)
    without = 0
    for version in served_versions(registry, served):
        if digest := reference_of(version.record):
            by_reference[digest].append(version)
        else:
            without += 1
    kinds = {digest: reference_kinds(store, digest) for digest in by_reference}
    known = {column for columns in kinds.values() for column in columns} - {*private}
    columns = sorted(known & {*served.columns})
    gone: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-") as folder:
        stretches = _stretches(store, served, by_reference, kinds, columns, Path(folder), gone) if columns else iter(())
        found = check_fleet_drift(stretches, config)
    versions = {str(v.key): v.number for group in by_reference.values() for v in group}
    told = _told(found, served, without, len(gone), sorted(known - {*served.columns}), private)
    for row in _alarms_of(found).head(_TOLD).itertuples():
        log("%s: drift in %s, %s %.3g, p %.2g", row.key, row.column, row.statistic, row.effect, row.p_value)
    result = {
        "verdict": found.verdict,
        "sentence": told,
        "rows": served.rows,
        "keys": found.compared,
        "drifted_keys": len(found.drifted),
        "few": found.few,
        "by_parent": {"keys": len(served.by_parent), "rows": sum(served.by_parent.values())},
        "without_reference": without + len(gone),
        "columns": found.columns,
        "table": keep_tests(store, found),
        "alarms": put_alarms(store, alarms_of(found, versions)),
        "private": sorted(private),
    }
    return result, _page(registry.pipeline, found, told, config)


def served_versions(registry: Registry, served: Served) -> list[Version]:
    """The versions that served their own keys, ordered by key."""
    return [*registry.get_many({key: number for key, (number, _) in served.own.items()}).values()]


def _stretches(
    store: Store,
    served: Served,
    by_reference: Mapping[str, Sequence[Version]],
    kinds: Mapping[str, Mapping[str, str]],
    columns: Sequence[str],
    folder: Path,
    gone: list[str],
) -> Iterator[Stretch]:
    """Yield what is compared; ``gone`` gets the keys whose reference was given up."""
    groups = [[str(version.key) for version in group] for group in by_reference.values()]
    rows = served.by_key(groups, columns, folder, most=MOST_ROWS)
    for (digest, versions), (current, starts) in zip(by_reference.items(), rows, strict=True):
        keys = [str(version.key) for version in versions]
        try:
            frame, places = read_reference(store, digest)
        except ObjectNotFound:
            gone += keys
            continue
        # A key that was in the shard and got no model has rows there too.
        mine = [places.get(key, slice(0, 0)) for key in keys]
        chosen = np.concatenate([np.arange(place.start, place.stop) for place in mine])
        counts = [place.stop - place.start for place in mine]
        yield Stretch(
            keys,
            [version.number for version in versions],
            frame.iloc[chosen].reset_index(drop=True),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            current,
            starts,
            {name: kind for name, kind in kinds[digest].items() if name in columns},
            reference_dependence(store, digest),
        )


def alarms_of(found: FleetDrift, versions: Mapping[str, int]) -> dict[str, tuple[int, list[str]]]:
    """What each key alarmed about; a column that drifted over all keys together counts for each of them."""
    alarms = found.tests[found.tests["alarm"]]
    compared = set(found.tests["key"]) - {ALL_KEYS} if found.everywhere else set()
    by_key: dict[str, set[str]] = {key: {*found.everywhere} for key in compared}
    for key, column in zip(alarms["key"], alarms["column"], strict=True):
        if key != ALL_KEYS:
            by_key.setdefault(key, set()).add(column)
    return {key: (versions[key], sorted(columns)) for key, columns in sorted(by_key.items())}


def keep_tests(store: Store, found: FleetDrift) -> str:
    """Store all alarms, and of each key its least likely test, as Parquet; return the digest."""
    tests = found.tests
    least = tests.sort_values("p_value", kind="stable").drop_duplicates("key").index
    return put_tests(store, tests[tests["alarm"] | tests.index.isin(least)].reset_index(drop=True))


def _told(
    found: FleetDrift, served: Served, without: int, gone: int, lost: Sequence[str], private: Collection[str]
) -> str:
    parts = [found.sentence]
    if without:
        parts.append(f"{without:,} keys have no reference, because they were trained without `monitor`")
    if gone:
        parts.append(f"{gone:,} keys have no reference any more: it was given up, as their models no longer serve")
    if served.by_parent:
        rows, keys = sum(served.by_parent.values()), len(served.by_parent)
        parts.append(f"not checked, because a parent served: {rows:,} rows of {keys:,} keys")
    if private:
        parts.append(f"not checked, because private: {', '.join(sorted(private))}")
    if lost:
        parts.append(f"not captured, so not checked: {', '.join(lost)}")
    return "; ".join(parts)


def _alarms_of(found: FleetDrift) -> pd.DataFrame:
    alarms = found.tests[found.tests["alarm"]]
    return alarms.sort_values(["p_value", "effect"], ascending=[True, False], kind="stable")


_PAGE = """\
<p><b>{{ sentence }}</b></p>
<p class="dim">{{ "{:,}".format(tests) }} tests. A change is an alarm where it is large (numbers: {{ effect }} σ,
categories: {{ effect / 2 }}, gaps: 0.02) and significant among all of them: p ≤ {{ "%.2g" | format(limit) }}
(Benjamini &amp; Hochberg). Where nothing drifts, one night in {{ nights }} has an alarm at most.</p>
<h2>Columns</h2>
<div class="scroll"><table><thead><tr><th>Column</th><th class="n">Keys</th><th>What</th></tr></thead><tbody>
{% for column in columns %}
<tr><td>{{ column.name }}</td><td class="n {{ "bad" if column.drifted }}">{{ "%.2g" | format(100 * column.effect) }} \
%</td><td>{{ column.sentence }}</td></tr>
{% endfor %}</tbody></table></div>
{% if rows %}
<h2>Alarms: {{ "{:,}".format(many) }}</h2>
{% if many > rows | length %}<p class="dim">The {{ rows | length }} least likely ones; \
<code>airflow mlops fleet drift</code> has the others.</p>{% endif %}
<div class="scroll"><table><thead><tr><th>Key</th><th>Version</th><th>Column</th><th>Statistic</th>\
<th class="n">Change</th><th class="n">p</th><th class="n">Rows then</th><th class="n">Rows now</th></tr></thead><tbody>
{% for row in rows %}
<tr><td>{{ row.key }}</td><td>{{ "v%d" | format(row.version) if row.version else "–" }}</td><td>{{ row.column }}</td>\
<td>{{ row.statistic }}</td><td class="n">{{ "%.3g" | format(row.effect) }}</td>\
<td class="n">{{ "%.2g" | format(row.p_value) }}</td><td class="n">{{ row.reference_rows | short }}</td>\
<td class="n">{{ row.current_rows | short }}</td></tr>
{% endfor %}</tbody></table></div>
{% endif %}
"""


def _page(pipeline: str, found: FleetDrift, sentence: str, config: Drift) -> str:
    alarms = _alarms_of(found)
    return render(
        _PAGE,
        title=f"Drift of the fleet {pipeline}",
        sentence=sentence,
        tests=len(found.tests),
        effect=config.effect,
        limit=max(found.limit, 0.0),
        nights=round(1 / config.alpha),
        columns=found.columns,
        many=len(alarms),
        rows=alarms.head(SHOWN).to_dict("records"),
    )
