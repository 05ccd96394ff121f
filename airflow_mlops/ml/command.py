"""Run a training script as it is: a process without a shell, with a small environment."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from airflow_mlops.exceptions import CodeNotAllowed, TrainingError

MODEL_FILE = "model.skops"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_KEPT = re.compile(
    # What programs need to start and find libraries. Airflow's and the clouds' settings, which hold secrets, stay here.
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TEMP|TMP|VIRTUAL_ENV|CONDA_PREFIX|PYTHONPATH|LD_LIBRARY_PATH"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|CUDA_VISIBLE_DEVICES|(OMP|MKL|OPENBLAS|NUMEXPR)_NUM_THREADS|LOKY_MAX_CPU_COUNT"
)
_LAST_LINES = 20


def check_command(command: str | None, *, allowed: bool) -> None:
    """Refuse a training command where none may run.

    :raises CodeNotAllowed: there is one, and commands are not allowed.
    """
    if command and not allowed:
        raise CodeNotAllowed(
            f"train.command is not allowed here: {command}",
            hint="a command can run anything on the worker; who runs this Airflow can allow it with "
            "[mlops] allow_commands = True",
        )


def run_command(
    command: str,
    features: pd.DataFrame,
    y: pd.Series,
    seed: int,
    folder: Path,
    log: Callable[[str], None],
    timeout: float | None = None,
    cwd: Path | None = None,
) -> Path:
    """Run ``command`` and return the path of the model file it left.

    ``{train}`` is a Parquet file with the feature columns and the target (the name of ``y``), ``{model_dir}`` a folder
    where the script must write ``model.skops``, ``{seed}`` the seed. Output goes to ``log`` line by line. The script
    gets no holdout, and of the environment only what a program needs to start.

    :param features: rows × feature columns.
    :param y: shape (rows,).
    :param folder: an empty folder to work in.
    :param timeout: seconds; then the script and its children are stopped.
    :raises TrainingError: malformed command, program not found, time-out, exit code other than 0 (with the last lines),
        or no model file.
    """
    data, model_dir = folder / "train.parquet", folder / "model"
    argv = _arguments(command, {"train": str(data), "model_dir": str(model_dir), "seed": str(seed)})
    environment = _environment(seed)
    program = shutil.which(argv[0], path=environment["PATH"])
    if program is None:
        raise TrainingError(
            f"train.command: the program {argv[0]!r} is not found on this worker",
            hint=f"install it or give its full path; PATH is {environment['PATH']}",
        )
    model_dir.mkdir()
    features.assign(**{str(y.name): y}).to_parquet(data, index=False)
    log(f"Running: {shlex.join(argv)}")
    try:
        process = subprocess.Popen(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as e:
        raise TrainingError(
            f"train.command cannot be started: {e}", hint=f"check {program} and {cwd or Path.cwd()}"
        ) from e
    last: deque[str] = deque(maxlen=_LAST_LINES)
    try:
        finished = _follow(process, log, last, timeout)
    finally:
        # Also when the task is being stopped: children must not outlive it.
        _stop(process)
    output = "; its last lines:\n" + "\n".join(f"    {line}" for line in last) if last else "; it printed nothing"
    if not finished:
        raise TrainingError(
            f"train.command ran longer than {timeout:g} s and was stopped{output}",
            hint="give train.resources.timeout more time",
        )
    if process.returncode != 0:
        how = f"exit code {process.returncode}"
        if process.returncode < 0:
            how = f"signal {signal.Signals(-process.returncode).name}"
        raise TrainingError(f"train.command ended with {how}{output}", hint=f"run it by hand: {command}")
    model = model_dir / MODEL_FILE
    if not model.is_file():
        found = ", ".join(sorted(p.name for p in model_dir.iterdir())) or "nothing"
        raise TrainingError(
            f"train.command ended well but left no {MODEL_FILE} in {{model_dir}} (found: {found}){output}",
            hint="end the script with skops.io.dump(model, Path(model_dir) / 'model.skops')",
        )
    return model


def _arguments(command: str, values: dict[str, str]) -> list[str]:
    try:
        parts = shlex.split(command)
    except ValueError as e:
        raise TrainingError(f"train.command is not a command line: {e}", hint="close every quote") from e
    if not parts:
        raise TrainingError("train.command is empty", hint="write the command that trains")
    unknown = sorted({n for part in parts for n in _PLACEHOLDER.findall(part)} - set(values))
    if unknown:
        raise TrainingError(
            f"train.command: there is no {{{unknown[0]}}}",
            hint="{train}, {model_dir} and {seed} can be used; a script never sees the holdout",
        )
    if "{model_dir}" not in command:
        raise TrainingError(
            "train.command does not use {model_dir}", hint="the script must write model.skops there: --out {model_dir}"
        )
    # Replaced after splitting, so that a path with a space stays one argument.
    return [_PLACEHOLDER.sub(lambda m: values[m[1]], part) for part in parts]


def _environment(seed: int) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if _KEPT.fullmatch(k)}
    # `python` in a command means the worker's own, also where its environment is not activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return kept | {"PATH": path, "PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": str(seed)}


def _follow(
    process: subprocess.Popen[str], log: Callable[[str], None], last: deque[str], timeout: float | None
) -> bool:
    """Log lines until the process ends; False when the time is over first."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line.rstrip("\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            line = lines.get(timeout=0.2)
        except queue.Empty:
            # A child left behind may hold the output open for ever: the process itself decides.
            if process.poll() is not None:
                return True
        else:
            if line is None:
                break
            last.append(line)
            log(line)
        if deadline is not None and time.monotonic() > deadline:
            return False
    try:
        process.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _stop(process: subprocess.Popen[str]) -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        # The group is gone when everything in it has ended by itself.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
