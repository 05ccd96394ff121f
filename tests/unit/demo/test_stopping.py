from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psutil

from airflow_mlops.demo.airflow import LiveAirflow


def _lives_in(session: int, process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and os.getsid(process.pid) == session
    except (psutil.NoSuchProcess, ProcessLookupError):  # ended while it was looked at: anybody's, on a busy machine
        return False


def test_what_is_started_while_the_processes_end_is_ended_too(tmp_path: Path) -> None:
    airflow = LiveAirflow(tmp_path, tmp_path)
    script = "trap 'sleep 300 & exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    airflow._processes["api-server"] = process
    airflow.stop()
    left = [p.pid for p in psutil.process_iter() if _lives_in(process.pid, p)]
    assert left == []
