"""The pages' API as users of FAB's auth manager, on tables that Airflow's own migrations have made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_user_sees_what_fab_lets_them_and_every_route_asks() -> None:
    # In a process of its own: Airflow settles on one auth manager and one database.
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.ui.fab_rights"],
        cwd=ROOT,
        env=own,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    told = [line for line in done.stdout.splitlines() if line.endswith("as it should be")]
    assert (done.returncode, len(told)) == (0, 7), done.stdout[-3000:] + done.stderr[-3000:]
