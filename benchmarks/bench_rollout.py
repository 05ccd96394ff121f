"""How often the verdict of a rollout's step is wrong, over all its looks: ``python benchmarks/bench_rollout.py``.

A version is rolled out that is worse by exactly what the gate allows, where it is hardest to tell, and versions that
are as good or clearly worse. ``naive`` tests at the gate's own confidence after each window and goes on at the first
yes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parent.parent / "tests" / "unit" / "ml")]

from test_rollout import judged, worse_by  # noqa: E402

from airflow_mlops.config.models import Evaluate, StepVerdict  # noqa: E402

Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, np.ndarray]]
GATES = {
    "mae, not worse by 0.1": {"metric": "mae", "versus": "champion", "not_worse_by": 0.1},
    "accuracy, not worse by 0.05": {"metric": "accuracy", "versus": "champion", "not_worse_by": 0.05},
}


def classes(worse: float, rows: int = 150) -> Draw:
    """Two classes; the version is right less often by ``worse`` in expectation, on other rows."""

    def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y = random.integers(0, 2, size=rows)
        right = random.random((2, rows)) < np.array([[0.85 - worse], [0.85]])
        mine, theirs = (np.where(one, y, 1 - y) * 0.8 + 0.1 for one in right)
        return y, mine, theirs

    return draw


def row(name: str, draw: Draw, gate: dict[str, Any], windows: int, times: int, known: list[Any] | None) -> str:
    """One line: how the step ended, how many windows it took, and what the naive way would have let through."""
    random = np.random.default_rng(11)
    evaluate = Evaluate.model_validate({"gates": [gate]})
    rules = StepVerdict(min_rows=30, max_windows=windows, on_timeout="keep")
    alone = StepVerdict(min_rows=30, max_windows=1, on_timeout="keep")
    ended = {"next": 0, "end": 0, "wait": 0}
    looks = naive = 0
    for _ in range(times):
        drawn = [draw(random) for _ in range(windows)]
        found = judged(drawn, evaluate, rules, classes=known)
        ended[found[-1].kind] += 1
        looks += len(found)
        for count in range(1, windows + 1):
            y, mine, theirs = (np.concatenate([part[i] for part in drawn[:count]]) for i in range(3))
            if judged([(y, mine, theirs)], evaluate, alone, classes=known)[-1].kind == "next":
                naive += 1
                break
    shares = [ended[kind] / times for kind in ("next", "end", "wait")]
    error = 1.96 * math.sqrt(0.05 * 0.95 / times)
    cells = " ".join(f"{100 * share:8.1f} %" for share in (*shares, naive / times))
    return f"{name:<42} {windows:>7} {cells} {looks / times:9.1f}   (± {100 * error:.1f} at 5 %)"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=2000, help="simulated rollouts a row")
    times = parser.parse_args().times
    print(f"{'version':<42} {'windows':>7} {'goes on':>10} {'falls':>10} {'waits':>10} {'naive':>10} {'looks':>9}")
    for windows in (3, 6):
        for name, worse in (("at the boundary", 0.1), ("as good", 0.0), ("twice as bad as allowed", 0.2)):
            print(
                row(f"mae: {name}", worse_by(worse), GATES["mae, not worse by 0.1"], windows, times, None), flush=True
            )
        for name, worse in (("at the boundary", 0.05), ("as good", 0.0), ("three times as bad as allowed", 0.15)):
            gate = GATES["accuracy, not worse by 0.05"]
            print(row(f"accuracy: {name}", classes(worse), gate, windows, times, [0, 1]), flush=True)


if __name__ == "__main__":
    main()
