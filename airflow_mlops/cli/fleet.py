"""``airflow mlops fleet …``: what the newest training of a fleet came to, and one of its models."""

from __future__ import annotations

import json
import shlex
import shutil
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.exceptions import ConfigError

if TYPE_CHECKING:
    from airflow_mlops.store.base import Store

_HEADINGS = ("key", "status", "version", "why")


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
    from airflow_mlops.ml.fleet.result import spread

    scores = spread(store, found["table"])
    if args.output == "json":
        print(json.dumps(found | {"scores": scores}, indent=2, ensure_ascii=False))
        return
    window = found["window"] or {}
    about = f", window {window['start']} … {window['end']}" if window.get("start") else ""
    print(f"{args.pipeline}: {found['sentence']}")
    print(f"run {found['run_id']} of {found['dag_id']}{about}")
    if found["tests"]:
        print(f"{found['tests']:,} keys were compared with their champion; p had to be at most {found['limit']:.2g}")
    for name, quantiles in scores.items():
        print(f"{name}: half of the keys between {quantiles[0]:.4g} and {quantiles[2]:.4g}, middle {quantiles[1]:.4g}")
    if found["counts"].get("failed"):
        print(f"airflow mlops fleet failures {args.pipeline} has the reasons")


@clear_errors
def failures(args: Namespace) -> None:
    """``airflow mlops fleet failures``."""
    from airflow_mlops.cli.tables import NONE, grid
    from airflow_mlops.ml.fleet.result import read_table

    store, found = _newest(args.pipeline)
    wanted = args.status or ["failed", "rejected", "inconclusive"]
    rows = read_table(store, found["table"], filters=[("status", "in", wanted)]).to_pylist()
    if args.output == "json":
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    print(f"{args.pipeline}: {len(rows):,} of {found['keys']:,} keys are {', '.join(wanted)}")
    shown = rows[: args.limit] if args.limit else rows
    cells = [
        (row["key"], row["status"], f"v{row['version']}" if row["version"] is not None else NONE, row["reason"])
        for row in shown
    ]
    if cells:
        width = shutil.get_terminal_size((80, 24)).columns
        print(grid(_HEADINGS, cells, width=max(width, 80), whole=("status", "version")))


@clear_errors
def show(args: Namespace) -> None:
    """``airflow mlops fleet show``."""
    from difflib import get_close_matches

    from airflow_mlops.ml.fleet.result import read_table
    from airflow_mlops.registry.registry import Registry

    store, found = _newest(args.pipeline)
    rows = read_table(store, found["table"], filters=[("key", "=", args.key)]).to_pylist()
    registry = Registry(store, args.pipeline)
    versions = registry.versions(args.key)
    if not rows and not versions:
        keys = [*map(str, registry.keys())]
        near = get_close_matches(args.key, keys, 3)
        raise ConfigError(
            f"the fleet {args.pipeline!r} has no key {args.key!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else f"it has {len(keys):,} keys with models",
        )
    row = rows[0] if rows else None
    champion = registry.champion(args.key)
    if args.output == "json":
        body = {
            "key": args.key,
            "champion": champion.number if champion else None,
            "newest": row,
            "versions": [
                {"version": v.number, "status": v.status, "registered_at": v.registered_at, "metrics": v.metrics}
                for v in versions
            ],
        }
        print(json.dumps(body, indent=2, ensure_ascii=False))
        return
    parent = row["served_by"] if row else None
    serves = f"v{champion.number} serves" if champion else f"{parent or 'a parent'} serves"
    print(f"{args.pipeline}[{args.key}]: {serves}")
    if row:
        said = row["reason"] if row["reason"].startswith(row["status"]) else f"{row['status']}: {row['reason']}"
        print(f"newest training: {'promoted; ' if row['promoted'] else ''}{said}")
    for version in reversed(versions):
        scores = ", ".join(f"{name} {value:.4g}" for name, value in version.metrics.items())
        print(f"  v{version.number} {version.status}, {version.registered_at[:16]}: {scores}")
    if champion:
        print(f"airflow mlops registry show {shlex.quote(f'{args.pipeline}[{args.key}]')} tells all of it")
