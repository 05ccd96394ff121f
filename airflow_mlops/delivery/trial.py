"""What is tried of a pipeline in CI: its training, that of the pipeline before it, and its feature code.

Each function runs the project's code, so each runs in a process of its own (see
:mod:`airflow_mlops.delivery.process`), on the same snapshot in a store that is thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.config.models import Data, Evaluate, PipelineConfig
from airflow_mlops.exceptions import DataError, MLOpsError
from airflow_mlops.pipeline import Pipeline, Say

if TYPE_CHECKING:
    import pandas as pd

    from airflow_mlops.ml.expectations_sql import Database
    from airflow_mlops.ml.files import Files
    from airflow_mlops.ml.reading import Sql
    from airflow_mlops.registry.registry import Version
    from airflow_mlops.store.base import Store

COMPARED_STEPS = ("train.fit", "evaluate.score")
"""Steps whose cost is compared: those that both sides run."""
_ROWS, _ALONE = 200, 10
SPLIT = ("split", "id", "timestamp", "target", "positive")


def train(
    config: PipelineConfig,
    folder: Path,
    store: Store,
    *,
    files: Files,
    sql: Sql | None,
    database: Database | None = None,
    sample: int,
    start: str | None,
    end: str | None,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
    allow_commands: bool,
    say: Say,
) -> dict[str, Any]:
    """Run the training of a pipeline on a sample and register its candidate in ``store``.

    :param store: one of CI's own: nothing in it is served.
    :returns: what came of it, as plain JSON; ``version`` names the candidate.
    :raises MLOpsError: as the steps do.
    """
    from airflow_mlops.ml.snapshot import Snapshot
    from airflow_mlops.registry.registry import Registry

    load_libraries()
    result = Pipeline(config, folder=folder, allowed_imports=allowed_imports).run(
        sample=sample,
        start=start,
        end=end,
        store=store,
        register=True,
        say=say,
        sql=sql,
        database=database,
        trusted_types=trusted_types,
        allow_commands=allow_commands,
        files=files,
    )
    version = Registry(store, config.pipeline).get(result.version or 0)
    return {
        "version": result.version,
        "verdict": result.verdict,
        "gates": [_gate(gate) for gate in result.gates],
        "snapshot": version.record["snapshot"],
        "columns": [str(c) for c in Snapshot.load(store, version.record["snapshot"]).to_pandas(store).columns],
        **_about(version.record, version.notes["evaluation"][-1], version.notes.get("cost", [])),
    }


def train_before(
    config: PipelineConfig,
    folder: Path,
    store: Store,
    *,
    snapshot: dict[str, Any],
    data: Data,
    seed: int,
    evaluate: Evaluate,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
    allow_commands: bool,
) -> dict[str, Any]:
    """Train the pipeline as it was before a change, on the snapshot, the split and the seed of the one after it.

    So both are judged on rows that neither has learned from, and differ by the change alone.

    :param config: of the pipeline before; what is cut off by it and how is ``data``'s and ``seed``'s.
    :param data: of the pipeline after.
    :param evaluate: of the pipeline after: which metrics are compared.
    :returns: as :func:`train`, without ``version`` and ``verdict``.
    """
    from airflow_mlops.ml.candidate import train_candidate
    from airflow_mlops.ml.candidate_verdict import evaluate_candidate
    from airflow_mlops.ml.command import check_command
    from airflow_mlops.ml.cost import Meter

    check_command(config.train.command, allowed=allow_commands)
    load_libraries()
    split = {name: getattr(data, name) for name in SPLIT} | {"min_rows": 1}
    data = config.data.model_copy(update=split)
    # What is recorded of the pipeline after is asked of that one alone.
    evaluate = evaluate.model_copy(update={"gates": [gate for gate in evaluate.gates if not gate.behaviours]})
    fit = Meter()
    record = train_candidate(
        store,
        snapshot,
        data=data,
        train_config=config.train.model_copy(update={"seed": seed}),
        features=config.features,
        metrics=evaluate.metrics,
        task=config.task,
        allowed_imports=allowed_imports,
        trusted_types=trusted_types,
        log=_quiet,
        folder=folder,
        pipeline=config.pipeline,
    )
    costs = [{"task": COMPARED_STEPS[0], **fit.read()}]
    score = Meter()
    evaluation = evaluate_candidate(
        store,
        record,
        None,
        data=data,
        config=evaluate,
        allowed_imports=allowed_imports,
        trusted_types=trusted_types,
        log=_quiet,
        verifier=None,
        pipeline=config.pipeline,
    )
    costs.append({"task": COMPARED_STEPS[1], **score.read()})
    return {"gates": [], **_about(record, evaluation, costs)}


def take_rows(
    config: PipelineConfig,
    store: Store,
    *,
    files: Files,
    sql: Sql | None,
    sample: int,
    start: str | None,
    end: str | None,
    allowed_imports: Sequence[str],
) -> dict[str, Any]:
    """Read a sample of what ``config.data`` names; returns ``rows``, those of the sample, and ``columns``."""
    from airflow_mlops.config.models import length
    from airflow_mlops.ml.data import read_batches
    from airflow_mlops.ml.sampling import SampledBatches
    from airflow_mlops.pipeline import window_of

    window, history = window_of(start, end, config.dag.timezone), length(config.data.window)
    window = window.reaching_back(history) if window and history else window
    batches = read_batches(config.data, files=files, window=window, sql=sql, allowed_imports=allowed_imports)
    sampled = SampledBatches(batches, sample, config.train.seed)
    rows = sum(batch.num_rows for batch in sampled)
    return {"rows": rows, "there": sampled.rows_read - sampled.rows_outside, "columns": list(sampled.schema.names)}


def check_contract(
    store: Store,
    pipeline: str,
    number: int,
    *,
    data: Data,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
) -> dict[str, Any]:
    """Compare what the model was trained on with what it is given when it predicts, row by row.

    In training, feature code sees all rows of a snapshot at once; when it predicts, it sees other rows, in a process
    that trained nothing. The features of a row must be the same in both, whatever rows stand beside it, and so must
    the prediction. What training saw is read from the store, as it was kept there for the serving check; private
    features are not kept, and not compared.

    :param number: of the version that :func:`train` registered; call this in another process than that.
    :returns: ``rows`` that were compared, and ``problems``: a sentence each.
    """
    from airflow_mlops.ml.candidate import featured
    from airflow_mlops.ml.candidate_verdict import read_sample
    from airflow_mlops.ml.features import FeatureSchema, recorded_code
    from airflow_mlops.ml.privacy import masked
    from airflow_mlops.ml.snapshot import Snapshot
    from airflow_mlops.ml.splitting import split_mask
    from airflow_mlops.registry.artifacts import fetch_model
    from airflow_mlops.registry.registry import Registry

    version: Version = Registry(store, pipeline).get(number)
    record = version.record
    frame = Snapshot.load(store, record["snapshot"]).to_pandas(store)
    schema, code = FeatureSchema.from_dict(record["schema"]), recorded_code(record)
    trained = read_sample(store, version.notes["evaluation"][-1]["sample"]).head(_ROWS)
    held = frame[split_mask(frame, data, record["seed"])].head(len(trained)).drop(columns=[data.target])

    def predicting(first: int, last: int) -> pd.DataFrame:
        part = held.iloc[first:last].reset_index(drop=True)
        return masked(schema.check(featured(part, data, code, allowed_imports)), schema.private)

    problems: list[str] = []
    try:
        together = predicting(0, len(held))
        problems += _differences(trained, together, f"{len(held)} rows at once")
        for place in range(0, len(held), max(len(held) // _ALONE, 1)) if not problems else ():
            alone = predicting(place, place + 1)
            problems += _differences(trained.iloc[[place]].reset_index(drop=True), alone, "a row by itself")
            if problems:
                break
    except MLOpsError as e:
        problems.append(f"what the model needs for a prediction cannot be made: {e.message}")
    if not problems:
        model = fetch_model(store, record["model"], trusted=trusted_types, verifier=None, pipeline=pipeline)
        if different := _unequal(model.predict(trained), model.predict(together)):
            problems.append(f"{different} of {len(held)} predictions are others in prediction than in training")
    return {"rows": len(held), "problems": problems}


def _unequal(mine: Any, theirs: Any) -> int:
    """How many of two arrays' values differ by more than rounding."""
    return int(unequal(mine, theirs).sum())


def unequal(mine: Any, theirs: Any) -> Any:
    """Which of two arrays' values differ by more than rounding, shape (n,)."""
    import numpy as np
    import pandas as pd

    if np.issubdtype(mine.dtype, np.floating):
        return ~np.isclose(mine, theirs, rtol=1e-9, atol=1e-12, equal_nan=True)
    return np.asarray((mine != theirs) & ~(pd.isna(mine) & pd.isna(theirs)))


def _differences(trained: pd.DataFrame, predicted: pd.DataFrame, how: str) -> list[str]:
    return [
        f"the feature {column} is another in prediction than in training: {count} of {len(trained)} rows ({how})"
        for column in trained.columns
        if (count := _unequal(trained[column].to_numpy(), predicted[column].to_numpy()))
    ]


def same_features(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Say how the columns of two models differ; each ``{name: kind}``."""
    return [
        *(f"+ {name} ({kind})" for name, kind in after.items() if name not in before),
        *(f"− {name} ({kind})" for name, kind in before.items() if name not in after),
        *(f"{name}: {before[name]} → {kind}" for name, kind in after.items() if before.get(name, kind) != kind),
    ]


def _about(record: dict[str, Any], evaluation: dict[str, Any], costs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from airflow_mlops.ml.cost import total

    compared = [cost for cost in costs if cost["task"] in COMPARED_STEPS]
    return {
        "task": record["task"],
        "rows": record["rows"],
        "features": {f["name"]: f["kind"] for f in record["schema"]["features"]},
        "model": {"digest": record["model"]["digest"], "bytes": record["model"]["bytes"]},
        "evaluation": evaluation["evaluation"],
        "metrics": evaluation["metrics"],
        "warnings": record["warnings"],
        # Not the peak memory: that is of a whole process, and the other side's does not validate.
        "cost": {name: total(compared)[name] for name in ("wall_seconds", "cpu_seconds")},
    }


def _gate(gate: dict[str, Any]) -> dict[str, Any]:
    said = {name: gate[name] for name in ("name", "verdict", "sentence")}
    return said | {"versus": bool(gate["gate"].get("versus"))}


def load_libraries() -> None:
    """Load what both sides train with first, so that the cost of neither has it in it."""
    import sklearn.ensemble
    import sklearn.linear_model  # noqa: F401

    import airflow_mlops.ml.candidate_verdict
    import airflow_mlops.ml.fleet.begin
    import airflow_mlops.ml.fleet.shard  # noqa: F401


def _quiet(*_: object) -> None:
    """Steps log for Airflow; here their result is told."""


def refuse_foreign(packages: Sequence[str], folder: Path) -> None:
    """Refuse to go on where a package of the project was imported from somewhere else.

    :raises DataError: one was: what ran is not what is checked.
    """
    import sys

    for name in packages:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if file and not Path(file).resolve().is_relative_to(folder.resolve()):
            raise DataError(
                f"the package {name!r} was imported from {file}, not from the project that is checked",
                hint="uninstall it from this environment (an editable installation?), or give it another name",
            )
