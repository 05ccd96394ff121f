"""Training jobs on Amazon SageMaker, without AWS: what is asked of one, what came of it, and its model.

The contract with the container is SageMaker's own: the training part lies in ``/opt/ml/input/data/train/train.parquet``
(the features, then the target), all hyperparameters as text in ``/opt/ml/input/config/hyperparameters.json``, and what
the container leaves in ``/opt/ml/model`` comes back as ``model.tar.gz``; here that must be ``model.skops``.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_mlops.config.models import SageMaker, Train
from airflow_mlops.config.models.train import hyperparameters
from airflow_mlops.exceptions import TrainingError
from airflow_mlops.jobs import TRAINING, check_ended
from airflow_mlops.ml.candidate import TrainingPart
from airflow_mlops.ml.command import MODEL_FILE
from airflow_mlops.ml.training import checked_labels
from airflow_mlops.registry.formats import MAX_BYTES
from airflow_mlops.store.base import Store
from airflow_mlops.window import parse_duration


def write_input(store: Store, key: str, part: TrainingPart) -> None:
    """Put the training part where a job reads it: the columns that a model may learn from, then the target.

    :raises TargetError: missing, infinite or single-valued labels.
    :raises TrainingError: the columns are not those of the schema.
    """
    target = part.schema.target
    features = part.schema.check(part.rows, error=TrainingError)
    labels = checked_labels(part.rows[target], target)
    with tempfile.TemporaryDirectory(prefix="mlops-train-") as folder:
        path = Path(folder, "train.parquet")
        features.assign(**{target: labels}).to_parquet(path, index=False)
        store.put_file(key, path)


def job_request(
    train: Train, asked: SageMaker, *, name: str, target: str, input_uri: str, output_uri: str, timeout: float | None
) -> dict[str, Any]:
    """The request CreateTrainingJob; the role may still be a name.

    :param input_uri: of the Parquet file. :param output_uri: a folder; SageMaker adds ``/NAME/output/model.tar.gz``.
    :param timeout: seconds that the task may take, if there is a limit.
    """
    longest = parse_duration(asked.max_runtime).total_seconds()
    channel = {
        "ChannelName": "train",
        "ContentType": "application/x-parquet",
        "InputMode": "File",
        "DataSource": {
            "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": input_uri,
                "S3DataDistributionType": "FullyReplicated",
            }
        },
    }
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": asked.image, "TrainingInputMode": "File"},
        "HyperParameters": hyperparameters({**train.params, "seed": train.seed, "target": target}),
        "RoleArn": asked.role,
        "InputDataConfig": [channel],
        "OutputDataConfig": {"S3OutputPath": output_uri},
        "ResourceConfig": {
            "InstanceType": asked.instance_type,
            "InstanceCount": 1,
            "VolumeSizeInGB": asked.volume_gb,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": max(1, int(min(longest, timeout or longest)))},
        **asked.request,
    }


def check_trained(job: Mapping[str, Any]) -> None:
    """:func:`~airflow_mlops.jobs.check_ended` of a training job, which SageMaker itself stops in time.

    :param job: what DescribeTrainingJob tells.
    """
    late = job.get("SecondaryStatus") == "MaxRuntimeExceeded"
    check_ended(TRAINING, job, limit=job["StoppingCondition"]["MaxRuntimeInSeconds"] if late else None)


def job_facts(job: Mapping[str, Any]) -> dict[str, Any]:
    """What the record of a version says of its job, plain JSON.

    :return: ``arn``, ``name``, ``image``, ``instance_type``, ``seconds`` of training, ``billed_seconds`` and
        ``finished`` (ISO 8601); what SageMaker does not tell is None.
    """
    start, end = job.get("TrainingStartTime"), job.get("TrainingEndTime")
    seconds = job.get("TrainingTimeInSeconds")
    if seconds is None and start is not None and end is not None:
        seconds = int((end - start).total_seconds())
    billed = job.get("BillableTimeInSeconds")
    return {
        "arn": job["TrainingJobArn"],
        "name": job["TrainingJobName"],
        "image": job["AlgorithmSpecification"].get("TrainingImage"),
        "instance_type": job["ResourceConfig"].get("InstanceType"),
        "seconds": seconds,
        "billed_seconds": seconds if billed is None else billed,
        "finished": end.isoformat() if end is not None else None,
    }


def unpack_model(archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES) -> Path:
    """Copy ``model.skops`` out of a job's ``model.tar.gz`` into ``folder`` and return its path.

    Nothing else is written, whatever the archive's names and links say, and no more than ``max_bytes`` are unpacked.

    :raises TrainingError: it is damaged or too large, there is no model in it, or it is there twice or no plain file.
    """
    found: Path | None = None
    others: list[str] = []
    try:
        # As a stream: nothing is sought, so that every byte that is unpacked is counted.
        with gzip.open(archive) as raw:
            counted = _Counted(raw, max_bytes)
            tar = _opened(counted)
            for member in tar:
                if member.name.removeprefix("./") != MODEL_FILE:
                    others.append(member.name)
                    continue
                content = tar.extractfile(member) if member.isreg() else None
                if content is None or found is not None:
                    what = "is there twice" if found is not None else "is no plain file"
                    raise TrainingError(f"{MODEL_FILE} {what} in the job's {archive.name}", hint=_LEAVE)
                found = folder / MODEL_FILE
                with found.open("wb") as file:
                    shutil.copyfileobj(content, file)
            # What tells that nothing was cut off or changed stands at the end, which tar does not read.
            while counted.read(1 << 16):
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as e:
        raise TrainingError(f"the job's {archive.name} cannot be read: {e}", hint=TRAINING.anew) from e
    if found is None:
        there = ", ".join(sorted(others)[:10]) or "nothing"
        raise TrainingError(f"the job left no {MODEL_FILE} in /opt/ml/model (found: {there})", hint=_LEAVE)
    return found


_LEAVE = f"end the container's program with skops.io.dump(model, '/opt/ml/model/{MODEL_FILE}')"


def _opened(counted: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=counted, mode="r|")


class _Counted:
    """Reads on until ``most`` bytes have come, then refuses: a small archive may unpack to anything."""

    def __init__(self, raw: gzip.GzipFile, most: int) -> None:
        self._raw = raw
        self._left = most
        self._most = most

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes."""
        data = self._raw.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise TrainingError(
                f"the job's model.tar.gz unpacks to more than {self._most:,} bytes",
                hint="train a smaller model, and leave nothing else in /opt/ml/model",
            )
        return data
