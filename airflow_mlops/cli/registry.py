"""``airflow mlops registry list|show|history|diff``: looking at versions; nothing is changed."""

from __future__ import annotations

import shlex
import shutil
import textwrap
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.model_ref import ModelRef, _near
from airflow_mlops.cli.registry_show import addresses, minute, said, value_text
from airflow_mlops.cli.tables import NONE, grid
from airflow_mlops.config.harmless import harmless, harmless_lines
from airflow_mlops.exceptions import ConfigError, VersionNotFound
from airflow_mlops.store.content import readable_json

if TYPE_CHECKING:
    from airflow_mlops.registry.compare import Difference
    from airflow_mlops.registry.overview import ModelSummary, Summary
    from airflow_mlops.registry.version import Version
    from airflow_mlops.store.base import Store

_LABEL = 12
_FEW = 4


def _columns() -> int:
    return max(80, shutil.get_terminal_size((80, 24)).columns)


@clear_errors
def list_(args: Namespace) -> None:
    """Every pipeline; or the versions of one, or the models of a fleet."""
    name, as_json = args.pipeline, args.output == "json"
    from airflow_mlops.cli.here import own_stdout
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry.overview import models, overview
    from airflow_mlops.registry.registry import Registry

    with own_stdout() as out:
        store = MLOpsHook().store()
        if name is None:
            found = overview(store)
            print(readable_json([asdict(s) for s in found]) if as_json else _pipelines(found, store), file=out)
            return
        ref = _whole(name, "show")
        known = models(store, ref.pipeline)
        if not known:
            there = [s.pipeline for s in overview(store)]
            raise VersionNotFound(
                f"{ref.pipeline} has no versions in {store.uri}", hint=_near(ref.pipeline, there, "pipeline")
            )
        if ref.key is None and known[0].key is not None:
            print(readable_json([asdict(m) for m in known]) if as_json else _fleet(known), file=out)
            return
        versions = Registry(store, ref.pipeline).versions(ref.key)
        if not versions:
            ref.find(store)  # says which keys there are
        print(readable_json([*map(_row, versions)]) if as_json else _versions(versions), file=out)


def _whole(name: str, instead: str) -> ModelRef:
    """A pipeline, or one model of a fleet, all versions of it.

    :param instead: the command that tells of one version.
    """
    ref = ModelRef.parse(name)
    if ref.number is not None or "@" in name.rpartition("]")[2]:
        command = f"airflow mlops {'registry ' if instead == 'show' else ''}{instead} {shlex.quote(name)}"
        raise ConfigError(f"{name!r} names one version, and this is about all of them", hint=f"try `{command}`")
    return ref


def _pipelines(found: Sequence[Summary], store: Store) -> str:
    if not found:
        return f"There are no pipelines in {store.uri}: train one first, or check [mlops] store."
    rows = [
        (
            s.pipeline,
            _number(s.champion) if s.models == 1 else f"{s.champions:,} of {s.models:,}",
            f"{s.versions:,}",
            f"{minute(s.at)} {s.action}",
        )
        for s in found
    ]
    return grid(("pipeline", "champion", "versions", "last change"), rows, width=_columns(), whole=("champion",))


def _fleet(found: Sequence[ModelSummary]) -> str:
    rows = [
        (NONE if m.key is None else m.key, _number(m.champion), _number(m.challenger), f"{m.versions:,}") for m in found
    ]
    return grid(("key", "champion", "challenger", "versions"), rows, width=_columns())


def _versions(versions: Sequence[Version]) -> str:
    rows = [
        (
            f"v{v.number}",
            v.status,
            minute(v.registered_at),
            ", ".join(f"{k} {value_text(x)}" for k, x in [*v.metrics.items()][:_FEW]) or NONE,
            ", ".join(f"{k}={x}" for k, x in sorted(v.tags.items())) or NONE,
        )
        for v in versions
    ]
    headings = ("version", "status", "registered", "metrics", "tags")
    return grid(headings, rows, width=_columns(), whole=headings[:3])


def _row(version: Version) -> dict[str, Any]:
    names = ("pipeline", "key", "number", "status", "registered_at", "promoted_at", "metrics", "tags", "model")
    return {name: getattr(version, name) for name in names}


@clear_errors
def show(args: Namespace) -> None:
    """One version, readable or whole."""
    model, as_json = args.model, args.output == "json"
    from airflow_mlops.cli.here import own_stdout
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry.export import card_of, told

    with own_stdout() as out:
        store = MLOpsHook().store()
        version = ModelRef.parse(model).find(store)
        if as_json:
            print(readable_json(told(version) | {"card": addresses(store, card_of(version))}), file=out)
            return
        lines = [harmless(f"{version.name}  {version.status}")]
        for label, texts in said(store, version):
            for number, text in enumerate(texts):
                start = f"{'' if number else label:<{_LABEL}} "
                lines += textwrap.wrap(
                    harmless(text), _columns(), initial_indent=start, subsequent_indent=" " * len(start),
                    break_on_hyphens=False, break_long_words=False,
                ) or [start.rstrip()]  # fmt: skip
        print("\n".join(lines), file=out)


@clear_errors
def history(args: Namespace) -> None:
    """Every change of a registry."""
    name, notes, as_json = args.pipeline, args.notes, args.output == "json"
    from airflow_mlops.cli.here import own_stdout
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry.overview import overview
    from airflow_mlops.registry.registry import Registry
    from airflow_mlops.registry.version import model_name

    with own_stdout() as out:
        store = MLOpsHook().store()
        ref = _whole(name, "lineage")
        rows = Registry(store, ref.pipeline).history()
        if not rows:
            there = [s.pipeline for s in overview(store)]
            raise VersionNotFound(
                f"{ref.pipeline} has no versions in {store.uri}", hint=_near(ref.pipeline, there, "pipeline")
            )
        if ref.key is not None:
            rows = [row for row in rows if row["key"] == ref.key]
            if not rows:
                ref.find(store)  # says which keys there are
        left = [row for row in rows if notes or row["action"] != "annotate" or row["kind"] == "approval"]
        if as_json:
            print(readable_json(left), file=out)
            return
        fleet = any(row["key"] is not None for row in rows)
        shown = [
            (
                minute(r["at"]),
                _what(r),
                (f"{model_name(ref.pipeline, r['key'])} " if fleet else "") + _moved(r),
                r["by"] or NONE,
                _why(r),
            )
            for r in left
        ]
        print(grid(("when", "what", "version", "by", "why"), shown, width=_columns(), whole=("when",)), file=out)


def _what(row: Mapping[str, Any]) -> str:
    if row["action"] == "rollout":
        return f"rollout {row['kind']}"
    if row["action"] != "annotate":
        return str(row["action"])
    return "approval" if row["kind"] == "approval" else f"note {row['kind']}"


def _why(row: Mapping[str, Any]) -> str:
    if row["action"] == "tag":
        return f"{row['kind']} removed" if row["reason"] is None else f"{row['kind']}={row['reason']}"
    return row["reason"] or NONE


def _moved(row: Mapping[str, Any]) -> str:
    before = row["replaced"]
    if row["action"] == "rollout":  # the champion stays
        return f"v{row['version']} beside v{before}"
    return f"v{before} → v{row['version']}" if before is not None else f"v{row['version']}"


@clear_errors
def diff(args: Namespace) -> None:
    """What differs between two versions."""
    a, b, as_json = args.a, args.b, args.output == "json"
    from airflow_mlops.cli.here import own_stdout
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry.compare import differences
    from airflow_mlops.registry.export import without_credentials

    with own_stdout() as out:
        store = MLOpsHook().store()
        one, two = (ModelRef.parse(text).find(store) for text in (a, b))
        found = without_credentials(differences(store, one, two))
        if as_json:
            print(readable_json({"a": one.name, "b": two.name, "differences": found}), file=out)
            return
        print(harmless_lines("\n".join(_differences(one, two, found))), file=out)


def _differences(a: Version, b: Version, found: Mapping[str, Difference]) -> Iterator[str]:
    yield f"{a.name} ({a.status}) and {b.name} ({b.status})"
    same = [part for part, fields in found.items() if not fields]
    rows = [
        (part if not number else "", field, value_text(one), value_text(two))
        for part, fields in found.items()
        for number, (field, (one, two)) in enumerate(fields.items())
    ]
    if rows:
        names = [f"{v.name.removeprefix(v.pipeline).strip() if a.pipeline == b.pipeline else v.name}" for v in (a, b)]
        yield grid(("part", "field", *names), rows, width=_columns(), whole=("part",))
    if same:
        yield f"the same: {', '.join(same)}"


def _number(version: int | None) -> str:
    return NONE if version is None else f"v{version}"
