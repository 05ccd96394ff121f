"""What goes between a task and the container of a batch transform job: rows there, predictions back, and the model.

Rows go in parts, each one Parquet file: the features as the model takes them, and each row's number. For each part
comes back one Parquet file: the row numbers again, what the model says, and in its metadata the sha256 of the part
and of the model. The model comes as an archive with a contract, whose own sha256 the container is told by whoever
creates the job: who can change the files, but not the job, can change nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mlops.exceptions import PredictionError, UntrustedArtifact
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.registry.artifacts import open_model
from airflow_mlops.registry.formats import FORMAT
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store.content import canonical_json

PARQUET = "application/x-parquet"
ROW = "__row__"
"""The column with the row's number, from 0 over all parts."""

CONTRACT_FILE, MODEL_FILE = "contract.json", "model.skops"
CONTRACT_VARIABLE = "AIRFLOW_MLOPS_CONTRACT"
"""Environment variable of the container: sha256 of the contract."""

_FORMAT = 1
_ABOUT = b"airflow_mlops"
_LARGEST_CONTRACT = 64 << 20


def put_rows(inputs: pd.DataFrame, schema: FeatureSchema) -> bytes:
    """A part: rows as the model takes them; their index is the row's number."""
    columns: dict[str, pa.Array] = {ROW: pa.array(inputs.index, pa.int64())}
    for feature in schema.features:
        kind = pa.string() if feature.kind == "category" else pa.float64()
        columns[feature.name] = pa.array(inputs[feature.name], kind, from_pandas=True)
    return _bytes(pa.table(columns))


def get_rows(part: bytes, schema: FeatureSchema) -> pd.DataFrame:
    """The rows of a part, as :func:`put_rows` took them.

    :raises PredictionError: it is no such part.
    """
    table = _table(part, "a part of the rows")
    _require(table, {ROW: pa.int64()}, "a part of the rows")
    frame = table.to_pandas()
    return schema.check(frame.set_index(pd.Index(frame[ROW].to_numpy(), dtype="int64")))


def put_said(rows: np.ndarray, said: Mapping[str, pa.Array], about: Mapping[str, Any]) -> bytes:
    """What a model says of a part.

    :param rows: their numbers. :param said: as :meth:`~airflow_mlops.ml.model_outputs.Outputs.of` gives it.
    :param about: ``part`` and ``model`` (sha256 of each), and ``packages``.
    """
    table = pa.table({ROW: pa.array(rows, pa.int64()), **said})
    return _bytes(table.replace_schema_metadata({_ABOUT: canonical_json(dict(about))}))


def get_said(answer: bytes, columns: Mapping[str, str], what: str) -> tuple[pa.Table, dict[str, Any]]:
    """The row numbers and what was said of them, and what :func:`put_said` was told about it.

    :param columns: name and type of the columns that must be there.
    :param what: names the answer in errors.
    :raises PredictionError: it is damaged, or has other columns.
    """
    table = _table(answer, what)
    try:
        about = json.loads((table.schema.metadata or {})[_ABOUT])
    except (KeyError, ValueError) as e:
        raise PredictionError(f"{what} is not from this package's container", hint=_IMAGE) from e
    _require(table, {ROW: pa.int64()} | {name: pa.type_for_alias(kind) for name, kind in columns.items()}, what)
    return table.select([ROW, *columns]), about


_IMAGE = "see deploy.batch.sagemaker.image: its program is `python -m airflow_mlops.ml.transform_server`"


def _bytes(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    return out.getvalue()


def _table(data: bytes, what: str) -> pa.Table:
    try:
        return pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    except (OSError, pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as e:
        raise PredictionError(f"{what} is no Parquet file that can be read: {e}", hint=_IMAGE) from e


def _require(table: pa.Table, columns: Mapping[str, pa.DataType], what: str) -> None:
    there = {field.name: field.type for field in table.schema}
    wrong = [f"{name} ({kind})" for name, kind in columns.items() if there.get(name) != kind]
    if wrong or len(there) < table.num_columns:
        has = ", ".join(f"{field.name} ({field.type})" for field in table.schema)
        raise PredictionError(f"{what} lacks {', '.join(wrong) or 'columns of different names'}; it has {has}")
    if nulls := [name for name in columns if table.column(name).null_count]:
        raise PredictionError(f"{what} has rows without {', '.join(nulls)}")


# --- the model -----------------------------------------------------------------------------------


def contract(info: Mapping[str, Any], schema: FeatureSchema, trusted: Sequence[str], about: Mapping[str, Any]) -> bytes:
    """What the container is to load, and how.

    :param info: of the model, from the version's record, its signature verified.
    :param trusted: types beyond the built-in ones that it may hold, from the configuration here.
    :param about: ``pipeline`` and ``version``, for its log.
    :raises PredictionError: the model is in a format that can run code when it is loaded.
    """
    if info.get("format") != FORMAT:
        raise PredictionError(
            f"the model is in the format {info.get('format')!r}, and a SageMaker job loads {FORMAT} only",
            hint="predict in Airflow's tasks: take deploy.batch.sagemaker away",
        )
    model = {name: info[name] for name in ("format", "digest", "bytes")}
    said = {"contract": _FORMAT, "model": model, "schema": schema.to_dict(), "trusted": [*trusted], **about}
    return canonical_json(said)


def pack_model(contract: bytes, model: Path, archive: Path) -> None:
    """Write the contract and the model's file as the ``.tar.gz`` that SageMaker unpacks to ``/opt/ml/model``."""
    # The time is left out: the same model gives the same bytes.
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
        model.open("rb") as file,
    ):
        for name, size, content in (
            (CONTRACT_FILE, len(contract), io.BytesIO(contract)),
            (MODEL_FILE, model.stat().st_size, file),
        ):
            member = tarfile.TarInfo(name)
            member.size, member.mode = size, 0o644
            tar.addfile(member, content)


def unpacked_model(folder: Path, digest: str) -> tuple[Any, FeatureSchema, dict[str, Any]]:
    """Load the model that was unpacked to ``folder``: the estimator, its schema and its contract.

    :param digest: sha256 of the contract.
    :raises UntrustedArtifact: the contract is another one, or the model holds types that are not trusted.
    :raises CorruptObject: the model is another one.
    """
    path = folder / CONTRACT_FILE
    if not path.is_file() or path.stat().st_size > _LARGEST_CONTRACT:
        raise UntrustedArtifact(
            f"there is no {CONTRACT_FILE} in {folder}", hint="the job's model is not of this package"
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise UntrustedArtifact(
            f"{path} is not the one that the job was made for", hint=f"{CONTRACT_VARIABLE} has its sha256"
        )
    said = json.loads(data)
    if said.get("contract") != _FORMAT:
        raise UntrustedArtifact(
            f"the contract is in the format {said.get('contract')}, this package knows {_FORMAT}",
            hint="build the image with the version of airflow-mlops that the workers have",
        )
    # The signature was verified before the contract was made, and the contract names the model by its sha256.
    model = open_model(folder / MODEL_FILE, said["model"], trusted=said["trusted"], verifier=Verifier())
    return model, FeatureSchema.from_dict(said["schema"]), said
