"""The library: plain functions and dataclasses over data and models. Nothing below imports Airflow."""

from __future__ import annotations

import os

# OpenMP's threads wait for each other by spinning, which takes ten times as long where tasks share the cores. The
# variable is read once, when scikit-learn is loaded; where it is set already, that counts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
