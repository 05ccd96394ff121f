"""How threads of scikit-learn wait, where somebody imports the library first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_told_otherwise(before, after):
    own = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env = own | ({"OMP_WAIT_POLICY": before} if before else {})
    code = "import airflow_mlops.ml, os; print(os.environ['OMP_WAIT_POLICY'])"
    assert subprocess.check_output([sys.executable, "-c", code], env=env, text=True).strip() == after
