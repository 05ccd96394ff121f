"""The only place that knows how keys look.

::

    blobs/<aa>/<sha256>                              immutable, content-addressed bytes
    pipelines/<pipeline>/log/<seq 10 digits>.json    the registry's append-only log
    pipelines/<pipeline>/log/HEAD                    a hint: seq and checksum of a recent entry; never the truth
    names/<pipeline>.json                            says that the pipeline has a log, for whoever lists them
    index.json                                       a hint: where every pipeline stood when somebody looked
    pipelines/<pipeline>/ledger/<seq>.json           the retrain ledger's append-only log
    pipelines/<pipeline>/holdouts/<sha256>/<seq>.json  decisions on one holdout, an append-only log
    pipelines/<pipeline>/captures/<window>.json      which capture holds a window's scored inputs
    pipelines/<pipeline>/rollouts/<window>.json      what the version that was rolling out said of a window's rows
    pipelines/<pipeline>/schema.json                 the locked schema
    pipelines/<pipeline>/checks/<window>.<check>.json  the newest result of a monitoring check
    pipelines/<pipeline>/rehearsal/…                 captures and checks of replays that do not promote
    pipelines/<pipeline>/experiments/<sha256>/plan.json, result.json, trials/<rung>.<number>.json  one experiment
    pipelines/<pipeline>/jobs/<job>/input/train.parquet, output/…  what a training job elsewhere reads and writes
    pipelines/<pipeline>/jobs/<job>/plan.json, rows/…, input/…, output/…, model.tar.gz  the same of a batch one
    pipelines/<pipeline>/fleets/<sha256>/…           one training of a fleet: chunks and shards under way, its result
    pipelines/<pipeline>/fleets/newest.json          a hint: the result of the newest training
    pipelines/<pipeline>/fleets/runs/<time>.<sha256>.json  the results of trainings, in the order of their times
    reports/<dag_id>/<sha256>.html                   readable reports, grouped by the DAG that may show them
    handover/<dag_id>/<sha256>.zip                   handover bundles, grouped likewise
    bundles/<project>/<sha256>.zip                   bundles of a project that its delivery has built
    deliveries/<project>/<delivery>/<step>.json      what a step of one delivery found
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_JOB = re.compile(r"pipelines/[^/]+/jobs/[^/]+/.+")


def _name(value: str) -> str:
    if not is_name(value):
        raise ValueError(f"not usable as a name in the store: {value!r}")
    return value


def is_name(value: str) -> bool:
    """Whether a pipeline can have this name in the store; a stray file need not."""
    return bool(_NAME.fullmatch(value)) and ".." not in value


def is_digest(value: str) -> bool:
    """Whether this can name content: a sha256 as 64 hex digits."""
    return bool(_DIGEST.fullmatch(value))


def _digest(value: str) -> str:
    if not is_digest(value):
        raise ValueError(f"not a sha256 digest: {value!r}")
    return value


def blob(digest: str) -> str:
    """Key of the blob whose sha256 (64 hex digits) is ``digest``."""
    return f"blobs/{_digest(digest)[:2]}/{digest}"


def pipelines_prefix() -> str:
    """Prefix of everything that belongs to one pipeline; what follows is its name and ``/``."""
    return "pipelines/"


def log_prefix(pipeline: str) -> str:
    """Prefix of a pipeline's registry log."""
    return f"pipelines/{_name(pipeline)}/log/"


def ledger_prefix(pipeline: str) -> str:
    """Prefix of a pipeline's retrain ledger."""
    return f"pipelines/{_name(pipeline)}/ledger/"


def holdouts_prefix(pipeline: str) -> str:
    """Prefix of the logs of decisions on a pipeline's holdouts; what follows is a holdout's name and ``/``."""
    return f"pipelines/{_name(pipeline)}/holdouts/"


def holdout_prefix(pipeline: str, holdout: str) -> str:
    """Prefix of the log of decisions on one holdout, named by 64 hex digits."""
    return f"{holdouts_prefix(pipeline)}{_digest(holdout)}/"


def log_entry(prefix: str, seq: int) -> str:
    """Key of entry ``seq`` (from 1) of the log under ``prefix``."""
    return f"{prefix}{seq:010d}.json"


def log_head(prefix: str) -> str:
    """Key of the hint where the log under ``prefix`` ends."""
    return f"{prefix}HEAD"


def names_prefix() -> str:
    """Prefix of the marks of pipelines that have a log."""
    return "names/"


def pipeline_name(pipeline: str) -> str:
    """Key of the mark that the pipeline has a log."""
    return f"names/{_name(pipeline)}.json"


def index() -> str:
    """Key of the hint where every pipeline stood."""
    return "index.json"


def schema(pipeline: str) -> str:
    """Key of the pipeline's locked schema."""
    return f"pipelines/{_name(pipeline)}/schema.json"


def _windows(pipeline: str, rehearsal: bool) -> str:
    # What a replay without promotion finds stands beside what really happened, never in its place.
    return f"pipelines/{_name(pipeline)}/{'rehearsal/' if rehearsal else ''}"


def capture(pipeline: str, window: str, *, rehearsal: bool = False) -> str:
    """Key of the pointer to the capture of one window (``Window.key``)."""
    return f"{_windows(pipeline, rehearsal)}captures/{_name(window)}.json"


def captures_prefix(pipeline: str, *, rehearsal: bool = False) -> str:
    """Prefix of the pointers to a pipeline's captures; what follows is ``Window.key`` and ``.json``."""
    return f"{_windows(pipeline, rehearsal)}captures/"


def rollout(pipeline: str, window: str) -> str:
    """Key of what is known of one window (``Window.key``) about the version that was rolling out."""
    return f"{rollouts_prefix(pipeline)}{_name(window)}.json"


def rollouts_prefix(pipeline: str) -> str:
    """Prefix of what is known about versions that were rolling out; what follows is ``Window.key`` and ``.json``."""
    return f"pipelines/{_name(pipeline)}/rollouts/"


def check(pipeline: str, window: str, name: str, *, rehearsal: bool = False) -> str:
    """Key of the newest result of the monitoring check ``name`` for one window."""
    return f"{_windows(pipeline, rehearsal)}checks/{_name(window)}.{_name(name)}.json"


def checks_prefix(pipeline: str, *, rehearsal: bool = False) -> str:
    """Prefix of all monitoring results of a pipeline."""
    return f"{_windows(pipeline, rehearsal)}checks/"


def experiments_prefix(pipeline: str) -> str:
    """Prefix of a pipeline's experiments; what follows is an experiment's id and ``/``."""
    return f"pipelines/{_name(pipeline)}/experiments/"


def experiment(pipeline: str, experiment: str, what: str) -> str:
    """Key of the ``plan`` or the ``result`` of one experiment, named by 64 hex digits."""
    return f"{experiments_prefix(pipeline)}{_digest(experiment)}/{_name(what)}.json"


def trials_prefix(pipeline: str, experiment: str) -> str:
    """Prefix of the records of an experiment's trials."""
    return f"{experiments_prefix(pipeline)}{_digest(experiment)}/trials/"


def trial(pipeline: str, experiment: str, rung: int, number: int) -> str:
    """Key of the record of one trial on one rung, both from 1."""
    return f"{trials_prefix(pipeline, experiment)}{rung:02d}.{number:05d}.json"


def jobs_prefix(pipeline: str) -> str:
    """Prefix of what jobs elsewhere read and write; what follows is a job's name and ``/``."""
    return f"pipelines/{_name(pipeline)}/jobs/"


def job_input(pipeline: str, job: str) -> str:
    """Key of the training part that a job reads."""
    return f"{jobs_prefix(pipeline)}{_name(job)}/input/train.parquet"


def job_output(pipeline: str, job: str) -> str:
    """Key of the archive with a job's model, as SageMaker names it."""
    return f"{jobs_prefix(pipeline)}{_name(job)}/output/model.tar.gz"


def job_prefix(pipeline: str, job: str) -> str:
    """Prefix of everything that one job reads and writes."""
    return f"{jobs_prefix(pipeline)}{_name(job)}/"


def job_part(pipeline: str, job: str, what: str, part: int) -> str:
    """Key of one part of the rows of a batch transform job: ``rows`` as they were read, or ``input``."""
    return f"{job_prefix(pipeline, job)}{_name(what)}/{part:06d}.parquet"


def job_model(pipeline: str, job: str) -> str:
    """Key of the archive with the model that a batch transform job predicts with."""
    return f"{job_prefix(pipeline, job)}model.tar.gz"


def job_plan(pipeline: str, job: str) -> str:
    """Key of what is known of the rows that a batch transform job predicts; written last."""
    return f"{job_prefix(pipeline, job)}plan.json"


def is_of_job(key: str) -> bool:
    """Whether a job elsewhere reads or writes this object."""
    return bool(_JOB.fullmatch(key))


def _fleet(pipeline: str, run: str) -> str:
    return f"pipelines/{_name(pipeline)}/fleets/{_digest(run)}/"


def fleet_chunk(pipeline: str, run: str, shard: int, chunk: int) -> str:
    """Key of some models of a shard that is under way; ``run`` is 64 hex digits."""
    return f"{_fleet(pipeline, run)}chunks/{shard:05d}.{chunk:05d}.parquet"


def fleet_shard(pipeline: str, run: str, shard: int) -> str:
    """Key of what one shard came to."""
    return f"{_fleet(pipeline, run)}shards/{shard:05d}.json"


def fleet_result(pipeline: str, run: str) -> str:
    """Key of what a training of a fleet came to."""
    return f"{_fleet(pipeline, run)}result.json"


def fleet_newest(pipeline: str) -> str:
    """Key of the hint which training of a fleet was the newest."""
    return f"pipelines/{_name(pipeline)}/fleets/newest.json"


def fleet_runs_prefix(pipeline: str) -> str:
    """Prefix of the results of a fleet's trainings; they are listed in the order of their times."""
    return f"pipelines/{_name(pipeline)}/fleets/runs/"


def fleet_run(pipeline: str, started: datetime, run: str) -> str:
    """Key of the result of a training that ``started`` (aware) then."""
    return f"{fleet_runs_prefix(pipeline)}{started.astimezone(UTC):%Y%m%dT%H%M%S%f}.{_digest(run)}.json"


def report(dag_id: str, digest: str) -> str:
    """Key of a report shown from tasks of ``dag_id``; whoever may read that DAG may read it."""
    return f"reports/{_name(dag_id)}/{_digest(digest)}.html"


def handover(dag_id: str, digest: str) -> str:
    """Key of a handover bundle made by ``dag_id``; whoever may read that DAG may download it."""
    return f"handover/{_name(dag_id)}/{_digest(digest)}.zip"


def bundle(project: str, digest: str) -> str:
    """Key of a bundle of a project, built by its delivery."""
    return f"bundles/{_name(project)}/{_digest(digest)}.zip"


def delivery_step(project: str, delivery: str, step: str) -> str:
    """Key of what one step of a delivery, named by 64 hex digits, found."""
    return f"deliveries/{_name(project)}/{_digest(delivery)}/{_name(step)}.json"
