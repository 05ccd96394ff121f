"""What the maturity levels are: one table, used by the reference and by whoever needs to know.

The levels are those of Google Cloud, "MLOps: Continuous delivery and automation pipelines in machine
learning", https://cloud.google.com/architecture/mlops-continuous-delivery-and-automation-pipelines-in-machine-learning

``TERMS`` has the same levels in Microsoft's and AWS's words. The three models do not cut at the same
places: a level is said to be another model's level when it does most of what that one asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = (
    "https://cloud.google.com/architecture/"
    "mlops-continuous-delivery-and-automation-pipelines-in-machine-learning"
)  # fmt: skip
MICROSOFT = "https://learn.microsoft.com/en-us/azure/architecture/ai-ml/guide/mlops-maturity-model"
AWS = (
    "https://aws.amazon.com/blogs/machine-learning/"
    "mlops-foundation-roadmap-for-enterprises-with-amazon-sagemaker/"
)  # fmt: skip


@dataclass(frozen=True)
class Term:
    """One level of one maturity model.

    :param vocabulary: whose model: ``google``, ``microsoft`` or ``aws``.
    :param word: how a file or a command writes it: a number, or AWS's word.
    :param asks: one sentence, what the model asks for.
    :param level: ours that stands for it.
    """

    vocabulary: str
    word: str
    name: str
    asks: str
    source: str
    level: int

    def __str__(self) -> str:
        return f"{self.word} {self.name}" if self.word != self.name else self.name


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
        dags=("__train", "__predict", "__registry"),
        requires=("pipeline", "level", "data", "data.target", "train"),
        adds=(),
        anchor="mlops_level_0_manual_process",
    ),
    1: MaturityLevel(
        number=1,
        name="ML pipeline automation (continuous training)",
        start="schedule, new data, drift, performance drop or staleness",
        promotion="gates decide; approval is optional",
        monitoring="data, drift, feature skew, performance, staleness",
        delivery="of the model",
        dags=("__train", "__predict", "__monitor", "__registry"),
        requires=("retrain", "evaluate.gates"),
        adds=("retrain", "monitor", "deploy.batch.schedule"),
        anchor="mlops_level_1_ml_pipeline_automation",
    ),
    2: MaturityLevel(
        number=2,
        name="CI/CD pipeline automation",
        start="as at level 1; the pipeline itself by a commit",
        promotion="gates, then step by step (shadow, canary, full), with rollback by itself; approval is optional",
        monitoring="as at level 1",
        delivery="of the pipeline and of the model",
        dags=("__train", "__predict", "__monitor", "__experiment", "__registry"),
        requires=(),
        adds=("experiment", "deploy.rollout", "deploy.verdict", "retrain.experiment_after"),
        anchor="mlops_level_2_cicd_pipeline_automation",
    ),
}

VOCABULARIES: dict[str, str] = {"google": "Google Cloud", "microsoft": "Microsoft", "aws": "AWS"}
"""Name in a file → whose maturity model it is."""

TERMS: tuple[Term, ...] = (
    Term(
        "google", "0", "manual process",
        "People build, train and deploy each model by hand.",
        LEVELS[0].source, 0,
    ),
    Term(
        "google", "1", "ML pipeline automation",
        "A pipeline trains on new data by itself, checks data and model, and delivers the model.",
        LEVELS[1].source, 1,
    ),
    Term(
        "google", "2", "CI/CD pipeline automation",
        "A commit builds, tests and deploys the pipeline itself.",
        LEVELS[2].source, 2,
    ),
    Term(
        "microsoft", "0", "No MLOps",
        "Training, tests, releases and the tracking of results are manual.",
        MICROSOFT, 0,
    ),
    Term(
        "microsoft", "1", "DevOps but no MLOps",
        "The application is built and tested automatically; each model is still trained and handed over by people.",
        MICROSOFT, 0,
    ),
    Term(
        "microsoft", "2", "Automated training",
        "Training is automatic, traceable and repeatable; models are managed in one place.",
        MICROSOFT, 1,
    ),
    Term(
        "microsoft", "3", "Automated model deployment",
        "Releases are automatic, with tests and traceability from the deployment back to the data.",
        MICROSOFT, 2,
    ),
    Term(
        "microsoft", "4", "Full MLOps automated operations",
        "The whole system is automatic and watched; what is seen in production starts training and release.",
        MICROSOFT, 2,
    ),
    Term(
        "aws", "initial", "initial",
        "Data scientists can experiment, train and deploy models.",
        AWS, 0,
    ),
    Term(
        "aws", "repeatable", "repeatable",
        "Automatic workflows prepare data and train; the models are kept and compared in a registry.",
        AWS, 1,
    ),
    Term(
        "aws", "reliable", "reliable",
        "Models and infrastructure are tested automatically in a staging environment before production.",
        AWS, 2,
    ),
    Term(
        "aws", "scalable", "scalable",
        "Templates let many teams bring many solutions to production in the same way.",
        AWS, 2,
    ),
)  # fmt: skip
"""Every level of the three models, in the order of each model."""


def vocabularies(level: int) -> dict[str, tuple[Term, ...]]:
    """Return ``level`` in the words of all three models: ``{"google": (…,), "microsoft": …, "aws": …}``.

    :raises ValueError: there is no such level.
    """
    found = {name: tuple(t for t in TERMS if (t.vocabulary, t.level) == (name, level)) for name in VOCABULARIES}
    if not all(found.values()):
        raise ValueError(f"there is no level {level!r}; possible are {_possible()}")
    return found


def level_number(value: object) -> int:
    """Return the level that ``value`` names: 0, 1 or 2.

    :param value: a number or its text, ``{"microsoft": 3}``, or ``"aws:reliable"`` as on the command line.
    :raises ValueError: it names no level.
    """
    vocabulary, word = _parts(value)
    for term in TERMS:
        if (term.vocabulary, term.word) == (vocabulary, word):
            return term.level
    raise ValueError(f"{_shown(value)} is not a level; possible are {_possible()}")


def _parts(value: object) -> tuple[object, str | None]:
    vocabulary: object = "google"
    if isinstance(value, dict) and len(value) == 1:
        ((vocabulary, value),) = value.items()
    elif isinstance(value, str) and ":" in value:
        vocabulary, _, value = value.partition(":")
    if isinstance(vocabulary, str):
        vocabulary = vocabulary.strip().lower()
    # A float or a boolean is no level, though Python counts True as 1.
    if type(value) is int:
        return vocabulary, str(value)
    return vocabulary, value.strip().lower() if isinstance(value, str) else None


def _possible() -> str:
    """The values that name a level, as a file writes them."""
    texts = [f"{name}: {', '.join(t.word for t in TERMS if t.vocabulary == name)}" for name in VOCABULARIES]
    return "0, 1, 2, or another model's name: " + "; ".join(texts)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return f"`{text if len(text) <= 60 else text[:59] + '…'}`"
