"""Whether a holdout of the latest rows can have enough blocks for the gates that judge by intervals."""

from __future__ import annotations

import math
from datetime import timedelta

from airflow_mlops.config.models import PipelineConfig, length
from airflow_mlops.config.yaml_source import Source

MIN_BLOCKS = 12
"""Fewer blocks, counted as blocks of equal size, and no interval can be trusted; ``benchmarks/bench_gates.py``."""


def check(source: Source, config: PipelineConfig) -> None:
    """Warn of gates that will stay inconclusive, as far as window and split tell.

    :param config: the pipeline that ``source`` holds.
    """
    data, evaluate = config.data, config.evaluate
    window = length(data.window)
    asking = [
        i
        for i, gate in enumerate(evaluate.gates)
        if gate.versus or gate.slices or gate.max_gap is not None or (gate.confidence is not None and not gate.serving)
    ]
    if data.split.by != "time" or evaluate.block == "none" or window is None or not asking:
        return
    stretch = length(evaluate.block) or timedelta(days=1)
    blocks = window * data.split.test / stretch
    if blocks >= MIN_BLOCKS:
        return
    path = ("evaluate", "gates", asking[0])
    days = math.ceil(MIN_BLOCKS * stretch / data.split.test / timedelta(days=1))
    message = (
        f"this gate will be inconclusive: the holdout spans about {blocks:.1f} blocks of {evaluate.block or '1d'}, in "
        f"which rows may depend on each other, and {MIN_BLOCKS} are needed"
    )
    advice = f"set `data.window` to {days}d or more, a larger `data.split.test`, or a shorter `evaluate.block`"
    where = ".".join(map(str, path))
    source.add(source.place(path), "blocks", message, advice, where, severity="warning")
