"""What both versions of a rollout said of the same rows, and how it came out, as gates take it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Data, Evaluate, Gate, Labels
from airflow_mlops.exceptions import CorruptObject, DataNotFound
from airflow_mlops.ml.blocks import block_codes, block_words
from airflow_mlops.ml.data import read_batches
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.features import FeatureSchema, plain
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.joining import last_of_each, same_keys
from airflow_mlops.ml.metrics import Predictions
from airflow_mlops.ml.performance import said_of, truth_of
from airflow_mlops.ml.prediction import read_capture
from airflow_mlops.ml.rollout_evidence import Evidence
from airflow_mlops.ml.value import value_functions
from airflow_mlops.registry.registry import Version
from airflow_mlops.store.base import Store

LabelsOf = Callable[[Evidence], str]
"""The rendered ``monitor.labels.source`` of a window."""


@dataclass(frozen=True)
class Compared:
    """Both versions on the same rows.

    :param tried: rows × columns as :func:`~airflow_mlops.ml.prediction.predict_batches` gives them; ``champion`` the
        same rows in the same order, with what the capture keeps of them.
    :param outcomes: shape (rows,), missing where none is known; ``None`` without ``monitor.labels``.
    """

    tried: pd.DataFrame
    champion: pd.DataFrame
    outcomes: pd.Series | None


def read_windows(
    store: Store,
    windows: Sequence[Evidence],
    *,
    data: Data,
    labels: Labels | None = None,
    labels_of: LabelsOf | None = None,
    files: Files | None = None,
) -> Compared:
    """Read what both versions said of these windows and, with ``labels``, the outcomes that are known.

    Of the rows of one id the last one counts, unless each window has outcomes of its own: then they are as many
    outcomes, which hang together.

    :raises CorruptObject: the two captures of a window do not hold the same rows.
    :raises DataError: as :func:`~airflow_mlops.ml.data.read_batches` does.
    """
    tried, champion, outcomes, places = [], [], [], []
    known: dict[str, pd.DataFrame] = {}
    for one in windows:
        if one.capture is None or one.champion_capture is None:
            continue
        mine = read_capture(store, one.capture)
        wanted = [*mine.columns, *(c for c in (data.timestamp, data.split.column) if c and c not in mine.columns)]
        theirs = read_capture(store, one.champion_capture)
        theirs = theirs[[c for c in wanted if c in theirs.columns]]
        if len(mine) != len(theirs) or (data.id is not None and not mine[data.id].equals(theirs[data.id])):
            raise CorruptObject(
                f"the captures {one.capture} and {one.champion_capture} of {one.window} hold other rows",
                hint="run the batch inference of this window again",
            )
        tried.append(mine)
        champion.append(theirs)
        source = ""
        if labels is not None and labels_of is not None and files is not None and data.id is not None:
            source = labels_of(one)
            if source not in known:
                known[source] = _outcomes(source, labels, data, files)
            outcomes.append(_joined(mine[data.id], known[source], labels, data))
        places += [source] * len(mine)
    if not tried:
        raise DataNotFound("no window of this step was scored by both versions")
    mine, theirs = (pd.concat(frames, ignore_index=True) for frames in (tried, champion))
    found = pd.concat(outcomes, ignore_index=True) if outcomes else None
    if data.id is not None:
        # An outcome that is read for two windows is one; without outcomes, the same rows scored twice say no more.
        ids = pd.DataFrame({"id": mine[data.id], "place": places})
        counts = (~ids.duplicated(keep="last") | ids["id"].isna()).to_numpy()
        mine, theirs = mine[counts].reset_index(drop=True), theirs[counts].reset_index(drop=True)
        found = found[counts].reset_index(drop=True) if found is not None else None
    return Compared(mine, theirs, found)


def _outcomes(source: str, labels: Labels, data: Data, files: Files) -> pd.DataFrame:
    """The outcomes at a source; none where there is no file or row yet."""
    there = Data(source=source, target=data.target, private=data.private)
    columns = [labels.join_on, data.target]
    try:
        batches = read_batches(there, files=files, window=None, columns=columns)
        return pd.concat([batch.to_pandas() for batch in batches], ignore_index=True)
    except DataNotFound:
        return pd.DataFrame(columns=columns)


def _joined(ids: pd.Series, known: pd.DataFrame, labels: Labels, data: Data) -> pd.Series:
    """The outcome of each row, missing where there is none; of outcomes with one id the last counts."""
    known = known.dropna(subset=[labels.join_on, data.target])
    left, right = same_keys(ids, known[labels.join_on])
    found, _ = last_of_each(known, right)
    joined = found[data.target].reindex(left)
    joined[ids.isna().to_numpy()] = None  # names no row
    return joined.reset_index(drop=True)


def evaluation_of(
    both: Compared,
    has: np.ndarray,
    outcomes: pd.Series,
    champion: Version,
    tried: Version,
    gates: Sequence[Gate],
    data: Data,
    evaluate: Evaluate,
) -> Evaluation:
    """What both versions said of the rows with an outcome, as gates take it.

    :param has: shape (rows,), whether the outcome is known; ``outcomes`` those that are.
    """
    schema = FeatureSchema.from_dict(champion.record["schema"])
    own = FeatureSchema.from_dict(tried.record["schema"])
    y, n_classes = truth_of(outcomes, schema)
    columns: dict[str, Any] = {"row": np.arange(len(y)), "y": y}
    said = {"candidate": said_of(both.tried[has], own), "champion": said_of(both.champion[has], schema)}
    for model, predictions in said.items():
        columns |= _columns(model, predictions)
    classes = None
    if schema.classes is not None:
        classes = [plain(c) for c in schema.classes]
        if len(classes) == 2 and schema.positive is not None:
            classes.sort(key=lambda c: c == schema.positive)
    for name, values in value_functions(gates, both.champion[has], ()).items():
        for model, predictions in said.items():
            columns[f"{model}_value:{name}"] = values(y, predictions, tuple(classes) if classes else None)
    blocks = blocks_of(both.champion[has], data, evaluate)
    if blocks is not None:
        columns["block"] = blocks
    return Evaluation(
        "classification" if n_classes is not None else "regression",
        tuple(classes) if classes is not None else None,
        (),
        pd.DataFrame(columns),
        True,
        same_model=champion.record["model"]["digest"] == tried.record["model"]["digest"],
        blocks=(block_words(data, evaluate) if _stretches(both.champion, data, evaluate) else "ids")
        if blocks is not None
        else None,
    )


def _columns(model: str, said: Predictions) -> dict[str, np.ndarray]:
    columns = {f"{model}_label": said.labels} if said.labels is not None else {}
    if said.proba is not None:
        columns |= {f"{model}_proba_{i}": said.proba[:, i] for i in range(said.proba.shape[1])}
    if said.decision is not None:
        columns[f"{model}_decision_0"] = said.decision
    return columns


def _stretches(rows: pd.DataFrame, data: Data, evaluate: Evaluate) -> bool:
    """Whether blocks are those of the holdout, and what tells them is kept."""
    needed = data.split.column if data.split.by == "group" else data.timestamp
    return needed is not None and needed in rows and block_codes(rows.head(1), data, evaluate) is not None


def blocks_of(rows: pd.DataFrame, data: Data, evaluate: Evaluate) -> np.ndarray | None:
    """Blocks of rows that may depend on each other: those of the holdout, else rows of one id; ``None``: none do."""
    if _stretches(rows, data, evaluate):
        return block_codes(rows, data, evaluate)
    if data.id is not None and rows[data.id].duplicated().any():
        return pd.factorize(rows[data.id])[0].astype(np.int64)
    return None
