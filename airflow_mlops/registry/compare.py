"""What differs between two versions, part by part."""

from __future__ import annotations

from typing import Any

from airflow_mlops.registry.provenance import lineage
from airflow_mlops.registry.version import Version
from airflow_mlops.store.base import Store

Difference = dict[str, tuple[Any, Any]]

PARTS = ("data", "config", "params", "features", "code", "environment", "metrics")


def differences(store: Store, a: Version, b: Version) -> dict[str, Difference]:
    """Return ``{part: {field: (of a, of b)}}`` for every part in ``PARTS``; a part that is equal is empty.

    A field that one of them has not is None there. Nested values are one field each, by their dotted path.

    :raises CorruptObject, StoreUnavailable: as the store does.
    """
    one, two = _parts(store, a), _parts(store, b)
    return {
        part: {
            field: (one[part].get(field), two[part].get(field))
            for field in dict.fromkeys((*one[part], *two[part]))
            if one[part].get(field) != two[part].get(field)
        }
        for part in PARTS
    }


def _parts(store: Store, version: Version) -> dict[str, dict[str, Any]]:
    told, record = lineage(store, version), version.record
    schema = record.get("schema") or {}
    features = {f["name"]: f["kind"] for f in schema.get("features") or ()}
    config = told["config"]
    source = told["data"].get("source") or {}
    data = {k: v for k, v in told["data"].items() if k != "source"} | {
        f"source.{k}": v for k, v in source.items() if k != "files"
    }
    # In the record, the parameters of the file; in the config, those the estimator was really built with.
    written = {k: v for k, v in _flat(record.get("config") or {}).items() if not k.startswith("train.params.")}
    return {
        "data": _flat(data),
        "config": {"made by": config["estimator"], "seed": config["seed"], **written},
        "params": _flat(config["params"]),
        "features": features | {f"target {k}": schema.get(k) for k in ("target", "classes", "positive")},
        "code": _flat(told["code"]),
        "environment": _flat(told["environment"]),
        "metrics": {m["name"]: m["value"] for m in told["metrics"]} or dict(version.metrics),
    }


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            found |= _flat(inner, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = inner
    return found
