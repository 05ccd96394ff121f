"""A candidate's way from version to verdict: score it beside the champion on its holdout, and decide by the gates.

As :mod:`~airflow_mlops.ml.candidate`, whose records these functions take.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Data, Evaluate, Gate, Serving
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.behaviours import check_behaviours, read_all
from airflow_mlops.ml.blocks import block_codes, block_words
from airflow_mlops.ml.candidate import Log, featured
from airflow_mlops.ml.data import Snapshot
from airflow_mlops.ml.evaluation import Evaluation, ModelAndFrame, Reference, evaluate
from airflow_mlops.ml.features import FeatureSchema, recorded_code
from airflow_mlops.ml.frames import Frames, frames, joined
from airflow_mlops.ml.gate_report import gate_report_html
from airflow_mlops.ml.gates import GateResult, decide, gate_metrics, next_reference
from airflow_mlops.ml.holdout import predict
from airflow_mlops.ml.importance import importance
from airflow_mlops.ml.overlap import learned_rows
from airflow_mlops.ml.privacy import masked
from airflow_mlops.ml.reference import make_reference, predicted, store_reference
from airflow_mlops.ml.serving import check_serving, predictions
from airflow_mlops.ml.splitting import frames_mask
from airflow_mlops.ml.value import value_functions
from airflow_mlops.ml.wear import claim_use, holdout_id, spends
from airflow_mlops.registry.artifacts import fetch_model, fetch_model_file
from airflow_mlops.registry.registry import Version
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store import get_blob, get_blob_file, get_json, put_blob, put_blob_file, put_json
from airflow_mlops.store.base import Store

_MOST_SAMPLE_ROWS = 1000


def evaluate_candidate(
    store: Store,
    record: dict[str, Any],
    champion: Version | None,
    *,
    data: Data,
    config: Evaluate,
    reference: Version | None = None,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
    log: Log,
    verifier: Verifier | None = None,
    pipeline: str | None = None,
    key: str | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Score a candidate and the champion on the candidate's holdout.

    Without feature code memory holds the holdout's rows, and of the others a column at a time; feature code is given
    all rows, as in training.

    :param reference: the version that ``not_worse_by`` counts losses from, see
        :meth:`~airflow_mlops.registry.registry.Registry.reference`; scored too where it is not the champion.
    :param verifier: whose signatures count; the candidate must be signed as a model of ``pipeline`` and ``key``.
    :param folder: where files of recorded behaviour lie.
    :returns: ``{"champion", "reference_version": numbers or None, "holdout", "evaluation", "sample", "expected":
        digests, "metrics", "rows", "blocks"}``; ``metrics`` by name; ``holdout`` names these rows
        (:mod:`airflow_mlops.ml.wear`); ``blocks`` says how many independent units they make, ``None`` where each is
        one; ``evaluation`` holds the row-by-row predictions, ``sample`` some holdout rows as the model takes them,
        ``expected`` the candidate's predictions of these, ``importance`` the digest of
        :func:`~airflow_mlops.ml.importance.importance`'s result, ``reference`` what drift will be measured against
        (:mod:`~airflow_mlops.ml.reference`), ``behaviours`` how recorded behaviour came out, where gates name some.
    :raises EvaluationError: a metric cannot be computed on this holdout.
    """
    snapshot = Snapshot.load(store, record["snapshot"])
    with frames(snapshot, store) as read:
        code = recorded_code(record)
        holdout = frames_mask(read, data, record["seed"])
        raw = read.whole(keep=holdout)

        def rows_by(code: str | None) -> pd.DataFrame:
            """The holdout after feature code."""
            return raw if code is None else featured(read.whole(), data, code, allowed_imports)[holdout]

        made = None if code is None else featured(read.whole(), data, code, allowed_imports)
        rows = raw if made is None else made[holdout]
        columns = [c for gate in config.gates for c in gate.columns]
        missing = sorted({c for c in columns if c not in raw.columns})
        if missing:
            raise EvaluationError(
                f"gates slice by {', '.join(missing)}, which the data does not have",
                hint=f"the columns are {', '.join(map(str, raw.columns))}",
            )
        if hidden := sorted(set(columns) & set(data.private)):
            raise EvaluationError(
                f"gates slice by {', '.join(hidden)}, which is private: the report would show its values",
                hint="slice by another column, or take it out of data.private",
            )
        schema = FeatureSchema.from_dict(record["schema"])
        candidate = fetch_model(
            store, record["model"], trusted=trusted_types, verifier=verifier, pipeline=pipeline, key=key
        )
        inputs = None if made is None else schema.check(made)
        mine = schema.check(raw) if inputs is None else inputs[holdout]

        def former(version: Version) -> ModelAndFrame:
            """A version's model, with the holdout as it takes it."""
            its_schema, its_code = FeatureSchema.from_dict(version.record["schema"]), recorded_code(version.record)
            its_rows = rows if its_code == code else rows_by(its_code)
            model = fetch_model(
                store,
                version.record["model"],
                trusted=trusted_types,
                verifier=verifier,
                pipeline=version.pipeline,
                key=version.key,
            )
            return model, its_schema.check(its_rows)

        other = None
        if champion is not None:
            other = former(champion)
            log("Champion is v%d; both are scored on the same %s rows", champion.number, f"{len(rows):,}")
        compared = None
        if reference is not None and champion is not None and reference.number != champion.number:
            log("Losses are counted from v%d, which is scored on these rows too", reference.number)
            compared = Reference(reference.number, reference.promoted_at), partial(former, reference)
        learned = {}
        for name, version in (("champion", champion), ("reference", reference if compared else None)):
            if version is not None and (
                many := learned_rows(
                    store, version.record, raw, data=data, seed=record["seed"], snapshot=snapshot.digest
                )
            ):
                learned[name] = many
                log(
                    "v%d has learned from %s of these rows: it looks better on them than it is",
                    version.number,
                    f"{many:,}",
                )
        codes = block_codes(raw, data, config)
        same = champion is not None and champion.record["model"]["digest"] == record["model"]["digest"]
        result = evaluate(
            candidate=(candidate, mine),
            champion=other,
            y=rows[data.target],
            task=record["task"],
            metrics=config.metrics,
            gate_metrics=gate_metrics(config.gates),
            worth=value_functions(config.gates, raw, allowed_imports, data.private),
            classes=schema.classes,
            positive=schema.positive,
            slices={c: raw[c] for c in dict.fromkeys(columns)},
            same_model=same,
            reference=compared,
            blocks=None if codes is None else (block_words(data, config), codes),
            known=_known(columns, schema, champion),
            learned=learned,
            log=log,
        )
        if result.reference is not None and result.reference.problem is not None:
            log("v%d cannot be scored on these rows: %s", result.reference.version, result.reference.problem)
        tried = _behaviours(
            config.gates, folder, candidate, schema, raw, data, record, allowed_imports, classes=result.classes, log=log
        )
        weights = importance(
            candidate,
            mine,
            rows[data.target],
            task=record["task"],
            metric=result.metrics[0].name,
            classes=schema.classes,
            positive=schema.positive,
            seed=record["seed"],
        )
        said = pd.DataFrame(predicted(candidate, result, mine), index=mine.index)
        times = read.whole([data.timestamp])[data.timestamp] if data.timestamp in snapshot.columns else None
        learned_from = inputs.join(said) if inputs is not None else _Inputs(read, schema, said)
        of_drift = store_reference(store, make_reference(learned_from, schema, times))
    # Kept, handed over and shown to people: what the model says about private values is said about 0 instead.
    sample = masked(mine.head(_MOST_SAMPLE_ROWS).reset_index(drop=True), schema.private)
    with tempfile.TemporaryDirectory(prefix="mlops-") as scratch:
        path = Path(scratch, "evaluation.parquet")
        result.to_parquet(path)
        digest = put_blob_file(store, path)
        sample.to_parquet(path)
        sample_digest = put_blob_file(store, path)
    expected = io.BytesIO()
    answers = predictions(candidate, sample)
    np.save(expected, answers.astype(str) if answers.dtype == object else answers, allow_pickle=False)
    return {
        "champion": champion.number if champion else None,
        "holdout": holdout_id(snapshot.fingerprint, holdout),
        "reference_version": reference.number if reference else None,
        "evaluation": digest,
        "sample": sample_digest,
        "expected": put_blob(store, expected.getvalue()),
        "reference": of_drift,
        "importance": put_json(store, weights),
        "behaviours": put_json(store, tried) if tried else None,
        "rows": result.rows,
        "blocks": f"{result.block_count[0]:,} {result.blocks}" if result.block_count else None,
        "metrics": {m["name"]: m for m in result.to_dict()["metrics"]},
    }


class _Inputs:
    """All rows of a snapshot as a model takes them, and what it said of some: a column at a time."""

    def __init__(self, read: Frames, schema: FeatureSchema, said: pd.DataFrame) -> None:
        self._read, self._schema, self._said = read, schema, said
        self.columns = [*schema.names, *said.columns]

    def __len__(self) -> int:
        return self._read.snapshot.rows

    def __getitem__(self, name: str) -> pd.Series:
        if name in self._said:
            return self._said[name].reindex(pd.RangeIndex(len(self)))
        one = self._schema.narrowed([name], "not asked for")
        return joined((one.check(batch)[name] for batch in self._read.batches([name])), len(self))


def _known(columns: Sequence[str], schema: FeatureSchema, champion: Version | None) -> dict[str, list[str]]:
    """Values of slice columns that candidate or champion saw in training, where they are categories of a feature."""
    schemas = [schema, *([FeatureSchema.from_dict(champion.record["schema"])] if champion else [])]
    found: dict[str, set[str]] = {}
    for feature in (f for s in schemas for f in s.features):
        if feature.name in columns and not feature.private and feature.categories:
            found.setdefault(feature.name, set()).update(feature.categories)
    return {name: sorted(values) for name, values in found.items()}


def _behaviours(
    gates: Sequence[Gate],
    folder: Path | None,
    model: Any,
    schema: FeatureSchema,
    raw: pd.DataFrame,
    data: Data,
    record: dict[str, Any],
    allowed: Sequence[str],
    *,
    classes: Sequence[Any] | None,
    log: Log,
) -> dict[str, Any]:
    """Try the recorded behaviours that gates name on a model; by file."""
    code = recorded_code(record)

    def ask(rows: pd.DataFrame) -> dict[str, np.ndarray]:
        inputs = schema.check(featured(rows, data, code, allowed), error=EvaluationError)
        ordered = tuple(classes) if classes is not None else None
        said = predict("candidate", model, inputs, ordered=ordered, labels=True)
        return {name.removeprefix("candidate_"): values for name, values in said.items()}

    roles = {data.target, data.id, data.timestamp, data.split.column, *data.exclude}
    columns = [str(c) for c in raw.columns if c not in roles]
    needed = [c for c in columns if code is not None or c in schema.names]
    tried = {}
    for found in read_all(gates, folder):
        log("Trying %d recorded behaviours of %s", len(found.cases), found.file)
        tried[found.file] = check_behaviours(
            found,
            ask,
            raw.drop(columns=[data.target]),
            classes=classes,
            needed=needed,
            private=data.private,
            seed=record["seed"],
        )
    return tried


def read_sample(store: Store, digest: str) -> pd.DataFrame:
    """Return the holdout rows kept by :func:`evaluate_candidate`, as the model takes them."""
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "sample.parquet")
        get_blob_file(store, digest, path)
        return pd.read_parquet(path)


def decide_candidate(
    store: Store,
    version: Version,
    evaluation: dict[str, Any],
    config: Evaluate,
    *,
    trusted_types: Sequence[str],
    log: Log,
    own_gate: Callable[[Evaluation], GateResult] | None = None,
    name: str | None = None,
    verifier: Verifier | None = None,
) -> tuple[dict[str, Any], str]:
    """Judge a version by the gates; returns the report as plain JSON and as a page.

    :param own_gate: one more gate, as code.
    :param name: what the page calls the version; default: its own name.
    :param verifier: whose signatures count where the model is loaded for a serving check.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "evaluation.parquet")
        get_blob_file(store, evaluation["evaluation"], path)
        rows = Evaluation.from_parquet(path)
        model = Path(folder, "model")

        def serve(serving: Serving) -> dict[str, Any]:
            log("Serving check: loading the model in a fresh process")
            info = version.record["model"]
            fetch_model_file(store, info, model, verifier=verifier, pipeline=version.pipeline, key=version.key)
            expected = np.load(io.BytesIO(get_blob(store, evaluation["expected"])), allow_pickle=False)
            registered = {
                "info": info,
                "verifier": (verifier or Verifier()).to_dict(),
                "pipeline": version.pipeline,
                "key": version.key,
            }
            sample = read_sample(store, evaluation["sample"])
            return check_serving(model, sample, expected, serving, trusted_types, registered=registered)

        wear = None
        # What the serving process does wears no rows, and a model compared with itself decides nothing.
        if (own_gate or any(g.metric or g.value for g in config.gates)) and not rows.same_model:
            wear = claim_use(
                store,
                version.pipeline,
                evaluation["holdout"],
                candidate=version.record["model"]["digest"],
                champion=evaluation["champion"],
                limit=config.holdout_uses,
                spends=spends(config.gates, evaluation["champion"]),
            )
        tried = evaluation.get("behaviours")
        report = decide(
            config.gates,
            rows,
            serving=serve,
            behaviours=get_json(store, tried) if tried else None,
            further=[own_gate] if own_gate else [],
            wear=wear,
        )
    champion, reference = evaluation["champion"], evaluation.get("reference_version")
    title = f"{name or version.name} against {f'v{champion}' if champion else 'no champion'}"
    counted = {"reference_version": reference, "next_reference": next_reference(report, version.number, reference)}
    return report.to_dict() | counted, gate_report_html(report, rows, title=title)
