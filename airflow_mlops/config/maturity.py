"""What the maturity levels are: one table, used by the reference and by whoever needs to know.

The levels are those of Google Cloud, "MLOps: Continuous delivery and automation pipelines in machine
learning", https://cloud.google.com/architecture/mlops-continuous-delivery-and-automation-pipelines-in-machine-learning
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = (
    "https://cloud.google.com/architecture/"
    "mlops-continuous-delivery-and-automation-pipelines-in-machine-learning"
)  # fmt: skip


@dataclass(frozen=True)
class MaturityLevel:
    """One level: ``requires`` and ``adds`` are keys of the pipeline file, dotted, beside those of the level below.

    ``dags`` are the endings of the DAG ids; ``anchor`` is the section of the source that defines the level.
    """

    number: int
    name: str
    start: str
    promotion: str
    monitoring: str
    delivery: str
    dags: tuple[str, ...]
    requires: tuple[str, ...]
    adds: tuple[str, ...]
    anchor: str

    @property
    def source(self) -> str:
        """Address of the definition."""
        return f"{SOURCE}#{self.anchor}"


LEVELS: dict[int, MaturityLevel] = {
    0: MaturityLevel(
        number=0,
        name="manual process",
        start="a person, with the trigger form",
        promotion="gates, then always a person's approval; the model is handed over as one bundle",
        monitoring="none; a data profile to look at",
        delivery="none",
        dags=("__train", "__predict"),
        requires=("pipeline", "level", "data", "data.target", "train"),
        adds=(),
        anchor="mlops_level_0_manual_process",
    ),
    1: MaturityLevel(
        number=1,
        name="ML pipeline automation (continuous training)",
        start="schedule, new data, drift, performance drop or staleness",
        promotion="gates decide; approval is optional",
        monitoring="data, drift, performance, staleness",
        delivery="of the model",
        dags=("__train", "__predict", "__monitor"),
        requires=("retrain", "evaluate.gates"),
        adds=("retrain", "monitor", "deploy.batch.schedule"),
        anchor="mlops_level_1_ml_pipeline_automation",
    ),
}
