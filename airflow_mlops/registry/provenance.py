"""Where a version came from and what became of it; and the other way round, which versions a thing went into."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from airflow_mlops.exceptions import ConfigError, ObjectNotFound
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.items import expanded
from airflow_mlops.registry.key_story import key_records
from airflow_mlops.registry.log import Log
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.registry.records import stored_pipelines
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.released import RETENTION, snapshot_of
from airflow_mlops.registry.version import Version, model_name
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import file_digest, get_json

SHORTEST = 6
"""Hex digits that a shortened digest or commit must have at least."""

# Up to the last @ where a colon before the first slash says that a password follows: keys of AWS hold slashes.
_CREDENTIALS = re.compile(r"(?<=://)(?:[^@\s/]*:\S*|[^/\s]*)@")
_QUERY = re.compile(r"\?\S*=\S*")  # not the "?" of a pattern
_WEB = re.compile(r"(?<=://)([^\s?#]*)[?#]\S*")
_HEX = re.compile(r"[0-9a-f]{6,64}")
_ROLLOUT = {
    "begin": "rollout began", "wait": "rollout looked at", "next": "rollout went on", "end": "rollout ended",
}  # fmt: skip
_DELIVERIES = ("promote", "rollback", "retire", "challenger", "rollout")
_TOLD_ELSEWHERE = ("evaluation", "gates", "approval")


def bare(uri: str) -> str:
    """A URI without user, password and query, where keys and signatures of links stand; text as it is."""
    if "://" not in uri:
        return uri
    uri = _CREDENTIALS.sub("", uri)
    return _WEB.sub(r"\1", uri) if uri.startswith("http") else _QUERY.sub("", uri)


def delivered_text(delivered: dict[str, Any]) -> str:
    """Say which commit of which project came with which bundle, by which deployment."""
    told = {"bundle": delivered.get("bundle"), "deployment": delivered.get("deployment")}
    parts = [f"{what} {str(name)[:12]}" if name else f"{what} unknown" for what, name in told.items()]
    return f"commit {str(delivered.get('commit'))[:12]} of {delivered.get('project')}, {', '.join(parts)}"


def job_text(job: dict[str, Any]) -> str:
    """Say which job elsewhere trained a model, and for how long."""
    billed = job.get("billed_seconds")
    took = f", {billed:,} s billed" if billed is not None else ""
    return f"trained by the SageMaker job {job.get('name')} on {job.get('instance_type')}{took}"


def lineage(store: Store, version: Version) -> dict[str, Any]:
    """Tell a version's way as plain JSON: data, config, code, environment, metrics, verdicts, approvals, deployments.

    What the record does not hold is None or empty. Credentials in URIs are left out.

    :raises CorruptObject, StoreUnavailable: as the store does.
    """
    record, info = version.record, version.record.get("model") or {}
    entries = [*_about(store, version)]
    rows = record.get("rows") or {}
    about = record.get("about") or {}
    return {
        "model": {
            "name": version.name,
            "pipeline": version.pipeline,
            "key": version.key,
            "version": version.number,
            "status": version.status,
            "registered_at": version.registered_at,
            "tags": version.tags,
            "owner": about.get("owner"),
            "digest": info.get("digest"),
            "bytes": info.get("bytes"),
            "format": info.get("format"),
            "signed_by": (info.get("signature") or {}).get("key"),
        },
        "run": record.get("run"),
        "data": _data(store, version) | {"train": rows.get("train"), "holdout": rows.get("holdout")},
        "config": {
            "hash": record.get("config_hash"),
            "estimator": record.get("estimator"),
            "features": ((record.get("config") or {}).get("features") or {}).get("callable"),
            "params": record.get("params") or {},
            "seed": record.get("seed"),
            "trials": record.get("trials"),
            "job": record.get("job"),
        },
        "code": record.get("code") or {},
        "environment": info.get("environment") or {},
        "metrics": _metrics(version),
        "verdicts": [
            {"at": at}
            | {k: note.get(k) for k in ("verdict", "sentence", "champion", "report")}
            | {"gates": [{k: r.get(k) for k in ("verdict", "sentence")} for r in note.get("results") or ()]}
            for at, note in _notes(entries, "gates")
        ],
        "approvals": [
            {"at": note.get("answered_at") or at, "by": note.get("by"), "answer": note.get("answer")}
            for at, note in _notes(entries, "approval")
        ],
        "deployments": _deployments(store, version, entries),
    }


def _about(store: Store, version: Version) -> Iterator[Entry]:
    """Entries of the log about a version; a rollback is about both the one it leaves and the one it returns to."""
    if version.key is not None:
        # Commits about thousands of models say nothing else of this one.
        log = key_records(store, version.pipeline, version.key, most=None).log
    else:
        log = tuple(expanded(store, Log(store, layout.log_prefix(version.pipeline)).entries()))
    for entry in log:
        left = entry.payload.get("expected") if entry.type in ("promote", "rollback") else None
        if entry.key == version.key and version.number in (entry.payload["version"], left):
            yield entry


def _notes(entries: Iterable[Entry], kind: str) -> list[tuple[str, dict[str, Any]]]:
    return [(e.at, e.payload["note"]) for e in entries if e.type == "annotate" and e.payload["kind"] == kind]


def _data(store: Store, version: Version) -> dict[str, Any]:
    reference = version.record.get("snapshot") or {}
    digest = snapshot_of(version.record)
    manifest = _manifest(store, digest) if digest else None
    released = any(n.get("what") == "snapshot" for n in version.notes.get(RETENTION, ()))
    return {
        "snapshot": digest,
        "fingerprint": reference.get("fingerprint"),
        "rows": reference.get("rows"),
        "columns": reference.get("columns"),
        "window": reference.get("window"),
        "validation": (reference.get("validation") or {}).get("sentence"),
        "source": _clean(manifest["source"]) if manifest else None,
        "state": "released by retention" if released else "kept" if manifest else "not in the store",
    }


def _manifest(store: Store, digest: str) -> dict[str, Any] | None:
    try:
        found = get_json(store, digest)
    except ObjectNotFound:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("source"), dict) else None


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _clean(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_clean(v) for v in value]
    return bare(value) if isinstance(value, str) else value


def _metrics(version: Version) -> list[dict[str, Any]]:
    notes = version.notes.get("evaluation")
    if not notes:
        return []
    against = notes[-1].get("champion")
    return [
        {"name": name, "value": m.get("candidate"), "low": m.get("candidate_low"), "high": m.get("candidate_high")}
        | ({"champion": m.get("champion"), "champion_version": against} if against else {})
        for name, m in sorted((notes[-1].get("metrics") or {}).items())
    ]


def _deployments(store: Store, version: Version, entries: list[Entry]) -> list[dict[str, Any]]:
    """What became of it, oldest first; predictions stand last, one item for each window."""
    told = [item for entry in entries if (item := _deployment(entry, version.number))]
    return [*told, *_predictions(store, version)]


def _predictions(store: Store, version: Version) -> Iterator[dict[str, Any]]:
    """Windows whose newest predictions are by this version; rehearsals left out."""
    for key in store.list(layout.checks_prefix(version.pipeline)):
        if not key.endswith(".prediction.json"):
            continue
        body = json.loads(store.get(key))
        result = body["result"]
        if (result.get("key"), result.get("version")) == (version.key, version.number):
            output = bare(str(result.get("output") or ""))
            said = {"window": body["window"], "rows": result.get("rows"), "output": output}
            yield {"what": "predicted", "at": body.get("at")} | said


def _deployment(entry: Entry, number: int) -> dict[str, Any] | None:
    body = entry.payload
    said = {"at": entry.at, "by": body.get("by"), "reason": body.get("reason"), "window": body.get("window")}
    if entry.type == "promote":
        if body["version"] == number:
            return {"what": "promoted", "instead_of": body.get("expected")} | said
        return {"what": "replaced", "by_version": body["version"]} | said
    if entry.type == "rollback":
        if body["version"] == number:
            return {"what": "returned to", "instead_of": body.get("expected")} | said
        return {"what": "rolled back", "by_version": body["version"]} | said
    if entry.type == "rollout":
        return {"what": _ROLLOUT[body["kind"]]} | said
    if entry.type in _DELIVERIES:
        return {"what": {"retire": "retired", "challenger": "made challenger"}[entry.type]} | said
    if entry.type != "annotate" or body["kind"] in _TOLD_ELSEWHERE:
        return None
    note = body["note"]
    if body["kind"] == "handover":
        return {"what": "handed over", "at": entry.at, "bundle": note.get("bundle"), "uri": bare(note.get("uri") or "")}
    if body["kind"] == "prediction":
        output = bare(str(note.get("output") or ""))
        return {"what": "predicted", "at": entry.at, "window": None, "rows": note.get("rows"), "output": output}
    if body["kind"] == "deployment":
        return {"what": "deployed", "at": entry.at} | {k: v for k, v in _clean(note).items() if k != "at"}
    return None


# --- backwards ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """A version that used what was asked for; ``through`` says in what way."""

    pipeline: str
    key: str | None
    version: int
    status: str
    registered_at: str
    through: str

    @property
    def name(self) -> str:
        """``churn v7``, or ``churn[LGA] v7`` within a fleet."""
        return f"{model_name(self.pipeline, self.key)} v{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def trained_on_snapshot(store: Store, digest: str) -> list[Use]:
    """Versions of all pipelines trained on a snapshot, or on equal rows, or on what validation left of it.

    :param digest: of a snapshot, or its fingerprint; its first 6 digits or more.
    :raises ConfigError: it is no digest.
    """
    wanted = _hexadecimal(digest, "snapshot")

    def through(record: dict[str, Any], manifest: dict[str, Any] | None) -> str | None:
        reference = record.get("snapshot") or {}
        if str(reference.get("snapshot")).startswith(wanted):
            return "the snapshot"
        if str(reference.get("fingerprint")).startswith(wanted):
            return "equal rows, by their fingerprint"
        if manifest and str(manifest["source"].get("from")).startswith(wanted):
            return "what validation left of it"
        return None

    return _search(store, through, manifests=True)


def trained_on_data(store: Store, place: str) -> list[Use]:
    """Versions of all pipelines trained on a file, or on what a source names: URI, pattern, folder, connection, code.

    :param place: path or URI; one that ends with ``/`` stands for everything below it. A relative path is found by
        its end, too, as paths in pipeline files count from the data root.
    """
    asked = _path(place)

    def through(record: dict[str, Any], manifest: dict[str, Any] | None) -> str | None:
        source = manifest["source"] if manifest else {}
        files = [f for f in source.get("files") or () if _lies_at(_path(str(f.get("uri"))), asked)]
        if files:
            more = f", and {len(files) - 1:,} more below it" if len(files) > 1 else ""
            return f"{bare(str(files[0]['uri']))}, {files[0].get('size'):,} bytes{more}"
        for kind in ("uri", "conn_id", "callable"):
            if source.get(kind) and _lies_at(_path(str(source[kind])), asked):
                return f"the source {bare(str(source[kind]))}"
        return None

    return _search(store, through, manifests=True)


def trained_by_code(store: Store, code: str) -> list[Use]:
    """Versions of all pipelines trained by code of a git commit or a source file.

    :param code: a commit, or a file's sha256, or the first 6 digits or more of it; or the path of a file that is here.
        Of code that was delivered also the bundle's sha256 and the deployment's commit.
    :raises ConfigError: it is neither.
    """
    wanted = file_digest(Path(code)) if Path(code).is_file() else _hexadecimal(code, "commit or sha256")

    def through(record: dict[str, Any], manifest: dict[str, Any] | None) -> str | None:
        found = record.get("code") or {}
        for path, digest in (found.get("files") or {}).items():
            if digest.startswith(wanted):
                return f"the file {path}"
        for what, name in (found.get("delivered") or {}).items():
            if what != "project" and str(name).startswith(wanted):
                return f"the {what} {name}"
        git = str(found.get("git"))
        return f"commit {git}" if git.startswith(wanted) else None

    return _search(store, through)


_Through = Callable[[dict[str, Any], dict[str, Any] | None], str | None]


def _search(store: Store, through: _Through, *, manifests: bool = False) -> list[Use]:
    uses = []
    for pipeline in stored_pipelines(store):
        registry = Registry(store, pipeline)
        entries = expanded(store, registry.log.entries())
        registrations = [e for e in entries if e.type == "register"]
        digests = sorted({d for e in registrations if (d := snapshot_of(e.payload["record"]))}) if manifests else []
        found = dict(zip(digests, parallel(lambda d: _manifest(store, d), digests, store), strict=True))
        for entry in registrations:
            record, number = entry.payload["record"], entry.payload["version"]
            if why := through(record, found.get(snapshot_of(record) or "")):
                status = registry.get(number, entry.key).status
                uses.append(Use(pipeline, entry.key, number, status, entry.at, why))
    return uses


def _hexadecimal(text: str, what: str) -> str:
    wanted = text.strip().lower()
    if not _HEX.fullmatch(wanted):
        raise ConfigError(
            f"{text!r} is no {what}", hint=f"give its hexadecimal digits, the first {SHORTEST} of them or more"
        )
    return wanted


def _path(place: str) -> str:
    return bare(unquote(place.removeprefix("file://")) if place.startswith("file:///") else place)


def _lies_at(recorded: str, asked: str) -> bool:
    if asked.endswith("/") and asked != "/":
        return recorded.startswith(asked) or recorded.startswith(f"{Path(asked).absolute()}/")
    if "://" in asked or asked.startswith("/"):
        return recorded == asked
    asked = asked.removeprefix("./")
    return recorded in (asked, str(Path(asked).absolute())) or recorded.endswith(f"/{asked}")
