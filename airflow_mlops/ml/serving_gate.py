"""Judge what a serving check measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from airflow_mlops.config.models import Gate, Serving
from airflow_mlops.ml.gate_result import GateResult, gate_dict

_SHOWN = 3


def judge_serving(gate: Gate, limits: Serving, result: dict[str, Any]) -> GateResult:
    """Hold :func:`airflow_mlops.ml.serving.check_serving`'s result against its limits; what is missing never passes."""
    problems = _problems(limits, result)
    if problems:
        sentence = "serving: " + "; ".join(problems)
    else:
        sentence = (
            f"serving: p50 {result['p50_ms']:.3g} ms and p95 {result['p95_ms']:.3g} ms over {result['rows']} rows,"
            f" {result['rows_per_second']:,.0f} rows/s in a batch, {result['memory_mb']:,.0f} MB of memory,"
            f" {result['size_mb']:.3g} MB of file, same predictions in a fresh process"
        )
        if result["environment"]:
            sentence += f"; its environment differs from training's: {told_environment(result['environment'])}"
    return GateResult(
        gate=gate_dict(gate),
        name="serving",
        verdict="rejected" if problems else "passed",
        sentence=sentence,
        value=result.get("p95_ms"),
        threshold=limits.p95_ms,
        serving=result,
    )


def told_environment(differences: Sequence[str] | None) -> str:
    """What differs from the environment of training, in a few words."""
    if differences is None:
        return "not recorded"
    more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    return (", ".join(differences[:_SHOWN]) or "the same") + more


def _problems(limits: Serving, result: dict[str, Any]) -> list[str]:
    if result.get("error"):
        return [str(result["error"])]
    problems = []
    if result["equal"] is not True:
        problems.append("a fresh process predicts something else than the training process")
    for key, limit, unit, what in (
        ("p50_ms", limits.p50_ms, "ms", "median of one row"),
        ("p95_ms", limits.p95_ms, "ms", "p95 of one row"),
        ("memory_mb", limits.max_memory_mb, "MB", "peak memory"),
        ("size_mb", limits.max_mb, "MB", "model file"),
    ):
        value = result[key]
        if limit is not None and not (math.isfinite(value) and value <= limit):
            problems.append(f"{what} {value:.3g} {unit} is above {limit:g} {unit}")
    least, rate = limits.min_rows_per_second, result["rows_per_second"]
    if least is not None and not (math.isfinite(rate) and rate >= least):
        problems.append(f"{rate:,.0f} rows/s in a batch of {result['batch_rows']:,} are fewer than {least:,.0f}")
    if limits.environment == "reject" and result["environment"] != []:
        if result["environment"] is None:
            problems.append("the environment of training was not recorded")
        else:
            problems.append(f"the environment differs from training's: {told_environment(result['environment'])}")
    return problems
