"""Is this data fit for use: locked schema, checks that always run, and Great Expectations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_mlops.config.models import Data, Fleet, Validate
from airflow_mlops.config.sql_expectations import ONLY_IN_SQL
from airflow_mlops.exceptions import DataError, ValidationFailed
from airflow_mlops.ml import expectations as gx
from airflow_mlops.ml import expectations_parts as gx_parts
from airflow_mlops.ml.expectations import Check, Expectation
from airflow_mlops.ml.expectations_report import expectations_html
from airflow_mlops.ml.fleet.broken import Broken, broken_keys, rows_without_key
from airflow_mlops.ml.frames import Frames, frames
from airflow_mlops.ml.label_quality import LabelQuality, label_checks, label_quality
from airflow_mlops.ml.schema import SchemaDiff, compare_schema, family, lock_schema, locked_schema
from airflow_mlops.ml.snapshot import Snapshot, write_snapshots
from airflow_mlops.ml.target import TargetCheck, unusable
from airflow_mlops.store import put_json
from airflow_mlops.store.base import Store

if TYPE_CHECKING:
    from airflow_mlops.ml.expectations_sql import Asked, Database

__all__ = [
    "Check",
    "SchemaDiff",
    "ValidationResult",
    "compare_schema",
    "lock_schema",
    "locked_schema",
    "validate",
]

_TARGET, _KEYED = "target is not null", "rows have a key"


@dataclass(frozen=True)
class ValidationResult:
    """What validation found and which rows go on.

    ``success``: every critical check passed. ``blocked``: the run must stop. ``snapshot``: what to work on from
    here (without quarantined rows). ``quarantined``: the rows set aside, or None. ``json``: digest of the blob with
    Great Expectations' own result. ``html``: a page for people. ``labels``: None where outcomes are not known yet.
    ``broken``: why, by key of a fleet whose rows were set aside; ``broken_digest``: of the blob that holds it.
    ``asked``: the database that evaluated the expectations, None where it was this process.
    """

    success: bool
    blocked: bool
    sentence: str
    checks: tuple[Check, ...]
    statistics: dict[str, int]
    snapshot: Snapshot
    quarantined: Snapshot | None
    json: str
    html: str
    labels: LabelQuality | None = None
    broken: Mapping[str, str] = field(default_factory=dict)
    broken_digest: str | None = None
    asked: Asked | None = None

    @property
    def evidence(self) -> dict[str, Any]:
        """What the run keeps of it, as plain JSON."""
        kept: dict[str, Any] = {"sentence": self.sentence, "result": self.json, **self.statistics}
        if self.asked is not None:
            kept["database"] = asdict(self.asked)
        if self.labels is not None:
            kept["labels"] = self.labels.to_dict()
        if self.quarantined is not None:
            kept["set_aside"] = self.quarantined.to_ref()
        if self.broken_digest is not None:
            kept["broken_keys"] = {"keys": len(self.broken), "why": self.broken_digest}
        return kept

    @property
    def failed(self) -> tuple[Check, ...]:
        """Checks that failed, of any severity."""
        return tuple(c for c in self.checks if not c.success)

    def check(self) -> None:
        """Raise :class:`ValidationFailed` when the run must stop."""
        if self.blocked:
            raise ValidationFailed(
                self.sentence,
                hint="see the validation report; repair the data, correct the expectation, or set validate.on_failure",
            )


def validate(
    snapshot: Snapshot,
    store: Store,
    config: Validate,
    data: Data,
    *,
    target_optional: bool = False,
    seen: Sequence[Mapping[str, Any]] | None = None,
    fleet: Fleet | None = None,
    database: Database | None = None,
) -> ValidationResult:
    """Check the snapshot; evidence is returned (and its JSON stored) whether it passes or not.

    The schema is compared with the lock first; the first run that is not blocked sets it. Great Expectations gets
    batches of rows where an expectation allows it, see :mod:`~airflow_mlops.ml.expectations_parts`. With
    ``on_failure: quarantine`` rows that fail row-level expectations move to a snapshot of their own; expectations
    about a whole column still block. Failures of ``severity`` warning or info are told and do not block.

    With ``fleet``, what would block because of some rows blocks the keys of these rows instead, each judged by its own
    rows; the rows of such a key are set aside, all of them, and the other keys go on.

    With ``engine: sql`` the database that the snapshot was read from evaluates the expectations, see
    :mod:`~airflow_mlops.ml.expectations_sql`; rows to quarantine are then looked for in the snapshot, and must be as
    many there. Rows that are not the database's own, of a file that a person asked for, a sample, or what was captured,
    are looked at here, and the sentence says so.

    :param target_optional: rows without known outcome: the target may be absent, expectations on it wait, and the
        schema is compared but not locked.
    :param seen: rows by class that the champion was trained on, ``[{"class", "rows"}]``; the labels are compared with
        them, see :func:`~airflow_mlops.ml.label_quality.label_quality`.
    :param database: opens the database of a connection, for ``engine: sql``.
    :raises SchemaSkew: columns or types differ from the lock. :raises ExpectationError: an expectation is wrong.
    """
    if config.schema_ == "infer":
        compare_schema(snapshot, store, data, target_optional=target_optional).check()
    families = {n: family(t) for n, t in snapshot.columns.items()}
    entries, skipped = list(config.expectations), []
    # A database knows nothing of files, of what was captured, and of a sample.
    elsewhere = snapshot.source.get("kind") != "sql" or "sample" in snapshot.source
    left_out = [n for e in entries for n in e if n in ONLY_IN_SQL] if config.engine == "sql" and elsewhere else []
    entries = [e for e in entries if next(iter(e)) not in left_out]
    if target_optional and data.target not in families:
        waiting = [e for e in entries if mentions(e, data.target)]
        entries = [e for e in entries if e not in waiting]
        skipped = [next(iter(e)) for e in waiting]
    suite = gx.build(entries, families)
    checks = _always(snapshot, store, data, target_optional)
    keyless = np.array([], np.int64)
    if fleet is not None and snapshot.rows:
        keyless = rows_without_key(snapshot, store, fleet)
        checks.append(_keyed(fleet, keyless, snapshot.rows))
    labels = None
    if not target_optional:
        labels = label_quality(snapshot, store, data, reference=seen)
        checks += label_checks(labels, config.labels, data.target)
    raw: dict[str, Any] = {"results": []}
    aside: dict[int, np.ndarray[Any, Any]] = {}
    found: list[Check] = []
    asked: Asked | None = None
    if suite and snapshot.rows:
        if config.engine == "sql" and not elsewhere:
            found, raw, against, asked = _in_database(suite, snapshot, data, database)
            checks += against
        with ExitStack() as stack:
            if asked is None or config.on_failure == "quarantine":
                read = stack.enter_context(frames(snapshot, store))
            if asked is None:
                found, raw = gx_parts.run(suite, read, data.private)
            checks += found
            if config.on_failure == "quarantine":
                aside = _failing_rows(suite, found, read)
    failing = [c for c in checks if not c.success and _critical(c)]
    placed = [c for e, c in zip(suite, found, strict=False) if e.number in aside]
    broken = Broken()
    if fleet is not None and snapshot.rows and config.on_failure != "warn":
        judged: list[tuple[Check, gx.Expectation | None]] = [(c, None) for c in checks if c.expectation == _TARGET]
        if config.on_failure == "block":
            judged += [(c, e) for c, e in zip(found, suite, strict=True) if _critical(c)]
        broken = broken_keys(snapshot, store, fleet, judged, keyless=keyless)
        placed += [c for c, _ in judged if c not in broken.unplaced]
        placed += [c for c in checks if c.expectation == _KEYED]
    digest = put_json(store, {"kind": "expectations", "snapshot": snapshot.digest, "result": raw,
                              "checks": [asdict(c) for c in checks],
                              "labels": labels.to_dict() if labels else None})  # fmt: skip
    unplaced = [c for c in failing if c not in placed]
    blocked, note = bool(unplaced) and config.on_failure != "warn", ""
    positions = np.unique(np.concatenate([broken.rows, *aside.values()]))
    least = 1 if target_optional else data.min_rows
    good, quarantined = snapshot, None
    if failing and config.on_failure == "warn":
        note = "; going on, as validate.on_failure is warn"
    elif blocked and (fleet is not None or config.on_failure == "quarantine"):
        what = "single keys" if fleet is not None and config.on_failure == "block" else "single rows"
        note = f"; not only {what} are at fault, so nothing was set aside"
        if asked is not None:
            note = note.replace(", so", ", or not the same ones in the snapshot, so")
    elif len(positions):
        left = snapshot.rows - len(positions)
        if left < least:
            blocked = True
            note = f"; without the rows at fault {left} are left, and {least} are needed"
        else:
            good, quarantined = _set_aside(snapshot, store, positions, data, target_optional)
            bad = len(positions) - len(broken.rows)
            told = [broken.sentence, f"{bad:,} rows quarantined" if bad else ""]
            note = f"; {', '.join(filter(None, told))}, {left:,} go on"
    if config.engine == "sql" and elsewhere:
        note += "; evaluated here, not in a database, as these rows are not its own"
    if left_out:
        note += f"; left out, as only a database computes it: {', '.join(left_out)}"
    sentence = _sentence(checks, note, of_keys=bool(broken.keys))
    success = not failing and not broken.keys
    statistics = {
        "evaluated": len(checks),
        "passed": sum(c.success for c in checks),
        "failed": sum(not c.success for c in checks),
        "waiting": len(skipped),
        "rows": snapshot.rows,
        "quarantined": quarantined.rows if quarantined else 0,
    }
    if config.schema_ == "infer" and not blocked and not target_optional:
        lock_schema(snapshot, store, data)
    html = expectations_html(
        snapshot.pipeline, snapshot.digest, str(snapshot.window) if snapshot.window else None, success=success,
        sentence=sentence, checks=checks, skipped=skipped, statistics=statistics, labels=labels, broken=broken.keys,
        asked=asked,
    )  # fmt: skip
    return ValidationResult(
        success, blocked, sentence, tuple(checks), statistics, good, quarantined, digest, html, labels,
        {} if blocked else broken.keys,
        put_json(store, {"kind": "broken keys", "keys": broken.keys}) if broken.keys and not blocked else None,
        asked,
    )  # fmt: skip


def _failing_rows(
    suite: Sequence[Expectation], found: Sequence[Check], read: Frames
) -> dict[int, np.ndarray[Any, Any]]:
    """Positions of the rows to quarantine, by expectation: those that are as many in the snapshot as were found."""
    pairs = zip(suite, found, strict=True)
    bad = {e.number: (e, c) for e, c in pairs if not c.success and c.row_level and _critical(c)}
    aside = gx_parts.failing_rows([e for e, _ in bad.values()], read) if bad else {}
    # Rows that came, went or changed since the snapshot was taken are in the database alone.
    return {n: rows for n, rows in aside.items() if len(rows) == bad[n][1].unexpected_count}


def _in_database(
    suite: Sequence[Expectation], snapshot: Snapshot, data: Data, database: Database | None
) -> tuple[list[Check], dict[str, Any], list[Check], Asked]:
    if database is None:
        raise DataError(
            f"validate.engine: sql asks the database of {snapshot.source['conn_id']!r}, and there is no way to it here",
            hint="use `airflow mlops run`, or pass database=, a function conn_id -> SQLAlchemy engine",
        )
    # Only here: SQLAlchemy is not needed for data that are files.
    from airflow_mlops.ml.expectations_sql import run

    return run(suite, snapshot, data, database)


def _critical(check: Check) -> bool:
    return check.severity == "critical"


def mentions(entry: Mapping[str, Mapping[str, Any]], target: str | None) -> bool:
    """Whether an expectation names the target anywhere: it waits for outcomes."""
    values = next(iter(entry.values())).values()
    return any(target in (value if isinstance(value, list) else [value]) for value in values)


def _always(snapshot: Snapshot, store: Store, data: Data, target_optional: bool) -> list[Check]:
    """Rows are there, and labels are: empty columns pass most of Great Expectations' checks."""
    checks = [Check("rows are there", "", snapshot.rows > 0, observed=str(snapshot.rows))]
    if data.target in snapshot.columns and not target_optional:
        missing, offset, rows = 0, 0, list[int]()
        for batch in snapshot.batches(store, [data.target]):
            null = unusable(batch.column(0))
            missing += pc.sum(null).as_py() or 0
            if len(rows) < gx.MAX_EXAMPLES:
                rows += [offset + i.as_py() + 1 for i in pc.indices_nonzero(null)]
            offset += batch.num_rows
        percent = 100 * missing / snapshot.rows if snapshot.rows else 0.0
        checks.append(
            Check(
                _TARGET,
                data.target,
                not missing,
                unexpected_count=missing,
                unexpected_percent=percent,
                rows=tuple(rows[: gx.MAX_EXAMPLES]),
            )
        )
    elif not target_optional:
        checks.append(Check("target is there", data.target, False))
    return checks


def _keyed(fleet: Fleet, keyless: np.ndarray[Any, Any], rows: int) -> Check:
    return Check(
        _KEYED,
        ", ".join(fleet.columns),
        not len(keyless),
        unexpected_count=len(keyless),
        unexpected_percent=100 * len(keyless) / rows,
        rows=tuple(int(i) + 1 for i in keyless[: gx.MAX_EXAMPLES]),
    )


def _sentence(checks: list[Check], note: str, *, of_keys: bool) -> str:
    failed = [c for c in checks if not c.success]
    if not failed:
        return f"all {len(checks)} checks passed{' on all rows together' if of_keys else ''}{note}"
    shown = "; ".join(c.sentence for c in failed[:3]) + (f"; and {len(failed) - 3} more" if len(failed) > 3 else "")
    return f"{len(failed)} of {len(checks)} checks failed: {shown}{note}"


def _set_aside(
    snapshot: Snapshot, store: Store, positions: np.ndarray[Any, Any], data: Data, target_optional: bool
) -> tuple[Snapshot, Snapshot]:
    mask = np.zeros(snapshot.rows, dtype=bool)
    mask[positions] = True
    target = None if target_optional else TargetCheck(data)
    batches = snapshot.batches(store)
    first = next(batches)

    def stream() -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        offset = 0
        batch: pa.RecordBatch | None = first
        while batch is not None:
            bad = pa.array(mask[offset : offset + batch.num_rows])
            offset += batch.num_rows
            good = batch.filter(pc.invert(bad))
            if target is not None:
                target.see(good)
            yield good, batch.filter(bad)
            batch = next(batches, None)

    origin = {**snapshot.source, "from": snapshot.digest}
    good, bad = write_snapshots(
        store, snapshot.pipeline, stream(), first.schema, window=snapshot.window,
        sources=[{**origin, "part": "kept"}, {**origin, "part": "quarantined"}],
        check=target.check if target else None,
    )  # fmt: skip
    return good, bad
