"""What a fleet's models are given when they predict, and which model serves: held against what training saw.

Rows are predicted as the tasks of ``__predict`` do it: divided by key, each key by its own model or by a parent.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.config.models import Fleet, PipelineConfig
from airflow_mlops.delivery.compare import read_evaluation
from airflow_mlops.delivery.fleet_compare import KEY as OF_ROW
from airflow_mlops.delivery.fleet_trial import KEY, PLACE, listed
from airflow_mlops.delivery.trial import unequal
from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.ml.candidate import featured
from airflow_mlops.ml.candidate_verdict import read_sample
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.features import FeatureSchema, recorded_code
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.fleet.keys import key_of
from airflow_mlops.ml.fleet.partition import frame_of
from airflow_mlops.ml.fleet.plan import Plan
from airflow_mlops.ml.fleet.predicting import predict_shard
from airflow_mlops.ml.fleet.predictions import OWN, PARENT, outcome_rows
from airflow_mlops.ml.fleet.serving import ROW, begin_prediction
from airflow_mlops.ml.fleet.shard import Trust
from airflow_mlops.ml.outputs import PREDICTION
from airflow_mlops.ml.privacy import masked
from airflow_mlops.ml.reading import read_batches
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import get_blob_file, get_json
from airflow_mlops.store.base import Store

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

_ALONE = 10


def check_contract(
    config: PipelineConfig,
    store: Store,
    tried: Mapping[str, Any],
    *,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
) -> dict[str, Any]:
    """Compare features and predictions of held out rows with those of training, and see that each key is served.

    :param tried: what :func:`airflow_mlops.delivery.fleet_trial.train` returned; call this in another process.
    :returns: ``rows`` whose features were compared, ``problems``: a sentence each, and ``served``: keys that a parent
        predicts, with its key.
    """
    import pyarrow as pa

    table = Snapshot.load(store, tried["snapshot"]).to_arrow(store).drop_columns([config.data.target])
    keys = key_of(frame_of(table), (config.fleet or Fleet(key="")).columns)
    # Training names a row by its key and its place among the rows of it.
    places = {name: place for place, name in enumerate(zip(keys, keys.groupby(keys).cumcount(), strict=True))}
    seen = read_sample(store, tried["fleet"]["seen"])
    chosen = [places[name] for name in zip(seen[KEY], seen[PLACE], strict=True)]
    trained = seen.drop(columns=[KEY, PLACE])
    problems = _other_features(
        config, store, tried, trained, frame_of(table.take(pa.array(chosen))), seen[KEY].to_numpy(), allowed_imports
    )
    if problems:
        return {"rows": len(seen), "problems": problems, "served": {}}
    said, outcome = _predict(config, store, table, allowed_imports, trusted_types)
    evaluation = read_evaluation(store, tried["evaluation"])
    names = zip(evaluation.frame[OF_ROW], evaluation.frame["row"], strict=True)
    problems = _other_predictions(evaluation, said.reindex([places[name] for name in names]))
    own = set(evaluation.frame[OF_ROW])
    for row in outcome:
        if row["model_key"] is None:
            problems.append(f"{row['key']}: {row['rows']:,} rows are not predicted: {row['reason']}")
        elif row["status"] != OWN and row["key"] in own:
            problems.append(f"{row['key']} has a model, and {row['model_key']} predicts its rows: {row['reason']}")
    served = {row["key"]: row["model_key"] for row in outcome if row["status"] == PARENT}
    return {"rows": len(seen), "problems": problems, "served": served}


def _other_features(
    config: PipelineConfig,
    store: Store,
    tried: Mapping[str, Any],
    trained: pd.DataFrame,
    held: pd.DataFrame,
    keys: np.ndarray,
    allowed: Sequence[str],
) -> list[str]:
    """Make the features of held out rows again, all at once and some rows by themselves."""
    import numpy as np

    shared = get_json(store, Plan.load(store, tried["fleet"]["plan"]).of)
    schema, code = FeatureSchema.from_dict(shared["schema"]), recorded_code(shared)

    def problems(rows: np.ndarray, how: str) -> list[str]:
        try:
            made = featured(held.iloc[rows].reset_index(drop=True), config.data, code, allowed)
            inputs = masked(schema.check(made), schema.private)
        except MLOpsError as e:
            of = f" ({keys[rows[0]]})" if len({*keys[rows]}) == 1 else ""
            return [f"what the models need for a prediction cannot be made{of}: {e.message}"]
        found = []
        for column in trained.columns:
            other = unequal(trained[column].to_numpy()[rows], inputs[column].to_numpy())
            if other.any():
                found.append(
                    f"the feature {column} is another in prediction than in training: {int(other.sum())} of "
                    f"{len(rows)} rows ({how}), of {listed([*dict.fromkeys(keys[rows][other])])}"
                )
        return found

    everything = np.arange(len(held))
    # Whoever has the rows of one key alone, as a handed over bundle may, sees its error by its name.
    for key in (None, *dict.fromkeys(keys)):
        rows = everything if key is None else everything[keys == key]
        if found := problems(rows, f"{len(rows)} rows at once"):
            return found
    for row in everything[:: max(len(held) // _ALONE, 1)]:
        if found := problems(np.array([row]), "a row by itself"):
            return found
    return []


def _other_predictions(evaluation: Evaluation, said: pd.DataFrame) -> list[str]:
    """Hold what was predicted now against what each model said of the same rows after its training."""
    import numpy as np

    codes = evaluation.frame["candidate_label"].to_numpy()
    now = said[PREDICTION].to_numpy()
    if evaluation.classes is None:
        then = codes
    else:
        then, now = np.array([*evaluation.classes], dtype=object)[codes], now.astype(object)
    other = unequal(then, now)
    if not other.any():
        return []
    keys = evaluation.frame[OF_ROW].to_numpy()[other]
    return [
        f"{int(other.sum()):,} of {len(other):,} predictions are others in prediction than in training, of "
        + listed([*dict.fromkeys(keys)])
    ]


def _predict(
    config: PipelineConfig, store: Store, table: pa.Table, allowed: Sequence[str], trusted: Sequence[str]
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Predict rows as the tasks do; return the predictions by the rows' places, and what became of each key."""
    import pandas as pd
    import pyarrow.parquet as pq

    registry = Registry(store, config.pipeline)
    with tempfile.TemporaryDirectory(prefix="mlops-ci-") as folder:
        pq.write_table(table, Path(folder, "rows.parquet"))
        data = config.data.model_copy(update={"source": "rows.parquet", "sql": None, "callable": None})
        batches = read_batches(data, files=Files(root=folder), window=None, target_optional=True)
        plan = begin_prediction(
            store, registry, batches, config.fleet or Fleet(key=""), id_column=data.id, slots=1, log=_quiet
        )
        done = [
            predict_shard(store, registry, plan, number, data=config.data, trust=Trust(allowed, trusted), log=_quiet)
            for number in range(len(plan.parts))
        ]
        parts = []
        for digest in [digest for shard in done for digest in shard["files"]]:
            path = Path(folder, "said.parquet")
            get_blob_file(store, digest, path)
            columns = [c for c in (ROW, PREDICTION) if c in pq.read_schema(path).names]
            parts.append(pq.read_table(path, columns=columns).to_pandas())
    return pd.concat(parts).set_index(ROW), outcome_rows(store, plan, done)


def _quiet(*_: object) -> None:
    """Steps log for Airflow; here their result is told."""
