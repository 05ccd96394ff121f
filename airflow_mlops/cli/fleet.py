"""``airflow mlops fleet …``: what the newest training of a fleet came to, one of its models, and all as a bundle."""

from __future__ import annotations

import json
import shlex
import shutil
from argparse import Namespace
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.tables import NONE, grid, short
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.registry.checks import read_check
from airflow_mlops.window import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_mlops.registry.version import Version
    from airflow_mlops.store.base import Store

_HEADINGS = ("key", "status", "version", "why")
_CHECKS = ("quality", "drift", "performance", "staleness", "system")


def _newest(pipeline: str) -> tuple[Store, dict[str, Any]]:
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.ml.fleet.result import read_newest

    hook = MLOpsHook()
    found = read_newest(hook.store(), pipeline)
    if found is None:
        raise ConfigError(
            f"no fleet of the name {pipeline!r} has been trained in {hook.store_uri}",
            hint="check the name and [mlops] store, or run its __train DAG first; only pipelines with `fleet` are here",
        )
    return hook.store(), found


@clear_errors
def status(args: Namespace) -> None:
    """``airflow mlops fleet status``."""
    store, found = _newest(args.pipeline)
    from airflow_mlops.ml.fleet.carried import table_of_all
    from airflow_mlops.ml.fleet.result import sentence, spread

    scores = spread(store, table_of_all(found))
    states = found.get("states") or found["counts"]
    checks = {name: check for name in _CHECKS if (check := read_check(store, args.pipeline, name))}
    if args.output == "json":
        watched = {"checks": {name: check[name] | {"window": check["window"]} for name, check in checks.items()}}
        print(json.dumps(found | {"scores": scores} | (watched if checks else {}), indent=2, ensure_ascii=False))
        return
    window = found["window"] or {}
    about = f", window {window['start']} … {window['end']}" if window.get("start") else ""
    print(f"{args.pipeline}: {found['sentence']}")
    print(f"run {found['run_id']} of {found['dag_id']}{about}")
    if found["tests"]:
        print(f"{found['tests']:,} keys were compared with their champion; p had to be at most {found['limit']:.2g}")
    if table_of_all(found) != found["table"]:
        print(f"all {sum(states.values()):,} keys, each by its last training: {sentence(states)}")
    for name, quantiles in scores.items():
        print(f"{name}: half of the keys between {quantiles[0]:.4g} and {quantiles[2]:.4g}, middle {quantiles[1]:.4g}")
    if states.get("failed"):
        print(f"airflow mlops fleet failures {args.pipeline} has the reasons")
    for name, check in checks.items():
        print(f"{name}, {short(Window.from_dict(check['window']))}: {check[name]['sentence']}")


@clear_errors
def drift(args: Namespace) -> None:
    """``airflow mlops fleet drift``."""
    from airflow_mlops.ml.fleet.drift import ALL_KEYS, read_tests

    store, _ = _newest(args.pipeline)
    check = read_check(store, args.pipeline, "drift")
    if check is None:
        raise ConfigError(
            f"{args.pipeline} has not been checked for drift",
            hint="write `monitor` into its file; its __monitor DAG then runs after each prediction",
        )
    result = check["drift"]
    tests = read_tests(store, result["table"])
    alarms = tests[tests["alarm"]].sort_values("p_value", kind="stable")
    rows = alarms.drop(columns="alarm").to_dict("records")
    if args.output == "json":
        shown = {name: result[name] for name in ("verdict", "sentence", "keys", "drifted_keys", "few", "by_parent")}
        print(json.dumps(shown | {"window": check["window"], "alarms": rows}, indent=2, ensure_ascii=False))
        return
    print(f"{args.pipeline}, {short(Window.from_dict(check['window']))}: {result['sentence']}")
    cells = [
        (
            "all together" if row["key"] == ALL_KEYS else row["key"],
            f"v{row['version']}" if row["version"] else NONE,
            row["column"],
            f"{row['statistic']} {row['effect']:.3g}",
            f"{row['p_value']:.2g}",
            f"{row['reference_rows']:,} → {row['current_rows']:,}" if row["version"] else NONE,
        )
        for row in (rows[: args.limit] if args.limit else rows)
    ]
    if cells:
        width = shutil.get_terminal_size((80, 24)).columns
        print(grid(("key", "version", "column", "change", "p", "rows"), cells, width=max(width, 80)))


def _is_one(row: dict[str, Any], wanted: Collection[str]) -> bool:
    """Whether a key is one of those that are asked for, by its status or by what a sentence counts it as."""
    promoted, not_due = bool(row["promoted"]), bool(row.get("decided_in"))
    return row["status"] in wanted or (promoted and "promoted" in wanted) or (not_due and "not due" in wanted)


@clear_errors
def failures(args: Namespace) -> None:
    """``airflow mlops fleet failures``."""
    from airflow_mlops.ml.fleet.carried import table_of_all
    from airflow_mlops.ml.fleet.result import read_table

    store, found = _newest(args.pipeline)
    wanted = args.status or ["failed", "rejected", "inconclusive"]
    rows = [row for row in read_table(store, table_of_all(found)).to_pylist() if _is_one(row, wanted)]
    if args.output == "json":
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    keys = sum((found.get("states") or {"": found["keys"]}).values())
    print(f"{args.pipeline}: {len(rows):,} of {keys:,} keys are {', '.join(wanted)}")
    shown = rows[: args.limit] if args.limit else rows
    cells = [
        (
            row["key"],
            row["status"],
            f"v{row['version']}" if row["version"] is not None else NONE,
            row["reason"] + (f" (in {row['decided_in']})" if row.get("decided_in") else ""),
        )
        for row in shown
    ]
    if cells:
        width = shutil.get_terminal_size((80, 24)).columns
        print(grid(_HEADINGS, cells, width=max(width, 80), whole=("status", "version")))


def _drift_of(store: Store, pipeline: str, key: str) -> str | None:
    """What the newest drift check says of one key: its alarms, else its least likely change."""
    from airflow_mlops.ml.fleet.drift import read_tests

    check = read_check(store, pipeline, "drift")
    if check is None or not check["drift"].get("table"):
        return None
    tests = read_tests(store, check["drift"]["table"])
    mine = tests[tests["key"] == key].sort_values("p_value", kind="stable")
    if mine.empty:
        return None
    found = [
        f"{row.statistic} {row.effect:.3g} in {row.column} (p {row.p_value:.2g})" + (": an alarm" * bool(row.alarm))
        for row in mine.itertuples()
    ]
    return f"drift, {short(Window.from_dict(check['window']))}: {'; '.join(found)}"


def _searched(champion: Version | None) -> dict[str, Any]:
    """The parameters that the champion's own search has chosen."""
    record = champion.record if champion is not None else {}
    search = ((record.get("config") or {}).get("train") or {}).get("search") or {}
    return {name: record["params"][name] for name in search.get("space", ()) if name in record.get("params", {})}


_MOST_LEFT = 10
"""So many of the newest former champions are asked whether they were rolled back: each keeps that in a commit."""


def _rolled_back(versions: Sequence[Version]) -> dict[int, dict[str, Any]]:
    """What was said when versions were rolled back, by their number; one that serves again is left out."""
    former = [v for v in versions if v.promoted_at and v.status != "champion"][-_MOST_LEFT:]
    return {v.number: notes[-1] for v in former if (notes := v.notes.get("rollback"))}


def _why_left(note: dict[str, Any]) -> str:
    return f"rolled back: {note['reason']}" + (f", by {note['by']}" if note["by"] else "")


def _outcome(row: dict[str, Any], serving: int | None) -> str:
    """What the last training of a key came to, and whether that still serves."""
    said = str(row["reason"] if row["reason"].startswith(row["status"]) else f"{row['status']}: {row['reason']}")
    when = f"last training, {row['decided_in']}" if row["decided_in"] else "newest training"
    if not row["promoted"]:
        return f"{when}: {said}"
    still = "" if row["version"] == serving else f" v{row['version']}, which serves no more"
    return f"{when}: promoted{still}; {said}"


@clear_errors
def show(args: Namespace) -> None:
    """``airflow mlops fleet show``."""
    from difflib import get_close_matches

    from airflow_mlops.ml.fleet.carried import read_key, table_of_all
    from airflow_mlops.registry.registry import Registry

    store, found = _newest(args.pipeline)
    row = read_key(store, table_of_all(found), args.key)
    registry = Registry(store, args.pipeline)
    versions = registry.versions(args.key)
    if row is None and not versions:
        keys = [*map(str, registry.keys())]
        # People type R1O for R10, and m14 for M14.
        plain = {key.lower().replace("o", "0"): key for key in keys}
        meant = plain.get(args.key.lower().replace("o", "0"))
        near = [meant] if meant else get_close_matches(args.key, keys, 3)
        raise ConfigError(
            f"the fleet {args.pipeline!r} has no key {args.key!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else f"it has {len(keys):,} keys with models",
        )
    champion, left = registry.champion(args.key), _rolled_back(versions)
    if args.output == "json":
        body = {
            "key": args.key,
            "champion": champion.number if champion else None,
            "searched": _searched(champion),
            "newest": row,
            "versions": [
                {"version": v.number, "status": v.status, "registered_at": v.registered_at, "metrics": v.metrics}
                | ({"rolled_back": left[v.number]} if v.number in left else {})
                for v in versions
            ],
        }
        print(json.dumps(body, indent=2, ensure_ascii=False))
        return
    parent = row["served_by"] if row else None
    serves = f"v{champion.number} serves" if champion else f"{parent or 'a parent'} serves"
    print(f"{args.pipeline}[{args.key}]: {serves}")
    if row:
        print(_outcome(row, champion.number if champion else None))
    if chosen := _searched(champion):
        print("its search chose " + ", ".join(f"{name}={value}" for name, value in chosen.items()))
    if told := _drift_of(store, args.pipeline, args.key):
        print(told)
    for version in reversed(versions):
        scores = ", ".join(f"{name} {value:.4g}" for name, value in version.metrics.items())
        why = f"; {_why_left(left[version.number])}" if version.number in left else ""
        print(f"  v{version.number} {version.status}, {version.registered_at[:16]}: {scores}{why}")
    if champion:
        print(f"airflow mlops registry show {shlex.quote(f'{args.pipeline}[{args.key}]')} tells all of it")


@clear_errors
def bundle(args: Namespace) -> None:
    """``airflow mlops fleet bundle``."""
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.ml.fleet.handover import make_fleet_bundle

    hook, out = MLOpsHook(), Path(args.out)
    made = make_fleet_bundle(
        hook.store(),
        hook.registry(args.pipeline),
        out,
        keys=args.key,
        verifier=hook.verifier(),
        allowed_imports=hook.allowed_imports,
    )
    print(f"{out}: {made.models:,} model{'' if made.models == 1 else 's'}, {out.stat().st_size:,} bytes")
    print(f"sha256 {made.digest}")
    print(f"To use it anywhere: unzip it, pip install -r requirements.txt, then: {made.command}")
