"""What it costs to use one holdout again and again: how often any of 20 candidates, none better, is called better.

    python benchmarks/bench_holdout.py
    python benchmarks/bench_holdout.py --runs 200

Each run draws a holdout, a champion and 20 candidates that are right as often as the champion, and asks the gate
`better_by: 0` at 95 % of each: once as if it were alone, once at the confidence that the holdout has left. The exit
code is 1 where the second exceeds 5 % by more than two standard errors.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Gate
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.gates import decide
from airflow_mlops.ml.wear import Wear, share_of

ALPHA, USES = 0.05, 20
GATE = Gate.model_validate({"metric": "accuracy", "versus": "champion", "better_by": 0.0})


def passes(y: np.ndarray, candidate: np.ndarray, champion: np.ndarray, wear: Wear | None) -> bool:
    """Whether the gate calls the candidate better."""
    frame = pd.DataFrame({"row": np.arange(len(y)), "y": y, "candidate_label": candidate, "champion_label": champion})
    return decide([GATE], Evaluation("classification", ("n", "p"), (), frame, True), wear=wear).verdict == "passed"


def run(rng: np.random.Generator, n: int) -> tuple[bool, bool]:
    """Whether any of the candidates passes, each judged alone and each at what is left."""
    y = rng.integers(0, 2, n)
    champion, *candidates = (np.where(rng.random(n) < 0.25, 1 - y, y) for _ in range(USES + 1))
    wears = [Wear(k, USES, share_of(k, USES), k) for k in range(1, USES + 1)]
    alone = any(passes(y, c, champion, None) for c in candidates)
    return alone, any(passes(y, c, champion, w) for c, w in zip(candidates, wears, strict=True))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    worst = ALPHA + 2 * (ALPHA * (1 - ALPHA) / runs) ** 0.5
    print(f"{'rows':>8}  {'alone':>8}  {'counted':>8}   ({runs} runs of {USES} candidates; at most {worst:.3f})")
    missed = False
    for n in (200, 1_000, 10_000):
        rng = np.random.default_rng(n)
        alone, counted = np.mean([run(rng, n) for _ in range(runs)], axis=0)
        missed |= counted > worst
        print(f"{n:>8,}  {alone:>8.3f}  {counted:>8.3f}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
