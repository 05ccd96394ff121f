"""What a local run found."""

from __future__ import annotations

import html
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from airflow_mlops.store.base import Store


@dataclass(frozen=True)
class StepResult:
    """One step of a run: what it told, and how long it took."""

    name: str
    told: tuple[str, ...]
    seconds: float


@dataclass(repr=False, kw_only=True)
class Closing:
    """What a run found; a temporary store of the run goes with this object, or at the end of its block."""

    _cleanup: Callable[[], None] = field(default=lambda: None)

    def __post_init__(self) -> None:
        self._finalizer = weakref.finalize(self, self._cleanup)

    def close(self) -> None:
        """Remove the run's temporary store; everything but ``store`` can still be used."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(repr=False)
class Experimented(Closing):
    """What a local experiment found.

    :param winner: ``number``, ``candidate``, ``params``, ``score``, ``rung``; of a model also ``train``, ``features``.
    :param sentence: what came of it, in words.
    :param trials: every trial, the best first: ``number``, ``candidate``, ``params``, ``rung``, ``score``, ``state``,
        ``seconds``, ``error``, ``resource``.
    :param result: what the gates said of the winner; ``None`` where there is no model.
    :param reports: title → HTML page; pages show values of the data.
    """

    pipeline: str
    winner: dict[str, Any]
    sentence: str
    trials: tuple[dict[str, Any], ...]
    result: Result | None
    reports: dict[str, str]
    steps: tuple[StepResult, ...]
    store: Store

    def __repr__(self) -> str:
        return f"<Experiment of {self.pipeline}: {self.sentence}>"


@dataclass(repr=False)
class Result(Closing):
    """What a local run found.

    :param verdict: ``passed``, ``rejected``, ``inconclusive`` or ``no_baseline``.
    :param sentence: the verdict in words.
    :param metrics: by name, as the registry keeps them: ``candidate``, ``candidate_low``, ``candidate_high`` and
        the same of ``champion`` (``None`` without one), ``lower_is_better``.
    :param gates: each gate's ``name``, ``verdict``, ``sentence``, ``value`` and ``threshold``.
    :param model: the fitted estimator.
    :param snapshot: reference of the rows it was made from: ``rows``, ``columns``, ``fingerprint``, ``window``, …
    :param reports: title → HTML page; pages show values of the data.
    :param version: number in the registry; ``None`` where nothing was registered.
    :param steps: every step in its order.
    :param store: what the run wrote to; a temporary one is removed with the result, or by :meth:`close`.
    """

    pipeline: str
    verdict: str
    sentence: str
    metrics: dict[str, dict[str, Any]]
    gates: tuple[dict[str, Any], ...]
    model: Any
    snapshot: dict[str, Any]
    reports: dict[str, str]
    version: int | None
    steps: tuple[StepResult, ...]
    store: Store

    @property
    def _title(self) -> str:
        return f"{self.pipeline} v{self.version}" if self.version else f"{self.pipeline}, not registered"

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {m['candidate']:.4g}" for name, m in self.metrics.items())
        return f"<Result of {self._title}: {self.verdict}; {scores}; {self.snapshot['rows']:,} rows>"

    def _repr_html_(self) -> str:
        """Verdict, metrics and gates as tables; the reports are other people's pages and stay out."""

        def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
            lines = ["".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows]
            head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
            return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

        def number(value: float | None) -> str:
            return "–" if value is None else f"{value:.4g}"

        metrics = [(name, number(m["candidate"]), number(m["champion"])) for name, m in self.metrics.items()]
        gates = [(g["name"], g["verdict"], g["sentence"]) for g in self.gates]
        return (
            f"<p><b>{html.escape(self._title)}</b>: {html.escape(self.sentence)}</p>"
            + table(("metric", "candidate", "champion"), metrics)
            + (table(("gate", "verdict", "in words"), gates) if gates else "")
        )


@dataclass(repr=False)
class FleetResult(Closing):
    """What a local run of a fleet found.

    :param verdict: ``passed`` where any key may go on, else ``rejected``.
    :param sentence: counts of keys by what became of them.
    :param counts: keys by what became of them.
    :param rows: one for each key: ``key``, ``status``, ``reason``, ``champion``, and where it has a model ``version``,
        ``train_rows``, ``holdout_rows``, ``metrics``, ``champion_metrics``, ``p_value``, ``seconds``.
    :param snapshot: reference of the rows that they were made from.
    :param reports: title → HTML page; pages show values of the data.
    :param registered: whether the versions are in the store for good.
    :param plan: digest of what was trained on which rows, :class:`airflow_mlops.ml.fleet.plan.Plan`.
    :param costs: what each step cost: ``task``, ``wall_seconds``, ``cpu_seconds``, ``peak_mb``.
    :param steps: every step in its order.
    :param store: what the run wrote to; a temporary one is removed with the result, or by :meth:`close`.
    """

    pipeline: str
    verdict: str
    sentence: str
    counts: dict[str, int]
    rows: tuple[dict[str, Any], ...]
    snapshot: dict[str, Any]
    reports: dict[str, str]
    registered: bool
    plan: str
    costs: tuple[dict[str, Any], ...]
    steps: tuple[StepResult, ...]
    store: Store

    def __repr__(self) -> str:
        return f"<Result of the fleet {self.pipeline}: {self.sentence}; {self.snapshot['rows']:,} rows>"
