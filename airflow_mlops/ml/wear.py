"""How often one holdout has decided, and what that leaves of its confidence.

Whoever tries many candidates on the same rows finds one that seems better by chance alone: of 20 that are no better,
each at 5 %, some one passes with a probability of up to 64 %. So every decision spends a share of each gate's error
probability, and all shares together are at most one: whichever of the candidates pass, the probability that any of
them passed by chance is at most the gate's own (a union bound). The shares fall with the square of the number of the
use, as in alpha-spending: most pipelines decide once on a holdout, and a new window brings a new one. A decision
without an interval, such as the first one of all, spends nothing.

The bound is for candidates that were made without looking at what this holdout said of others. Who tunes by the gate
report wears a holdout out faster than any count can tell; then only new rows help.

References: Dwork, Feldman, Hardt, Pitassi, Reingold & Roth (2015), "The reusable holdout", *Science* 349, 636-638;
Renggli, Karlaš, Ding, Liu, Schawinski, Wu & Zhang (2019), "Continuous integration of machine learning models with
ease.ml/ci", *MLSys*; Foster & Stine (2008), *JRSS B* 70, 429-444 (an error probability as a budget that is spent).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from airflow_mlops.config.models import Gate
from airflow_mlops.ml.gate_result import GateResult
from airflow_mlops.registry.log import Entry, Log, op_id
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store

_LEAST = 1e-9
"""A share below this is what rounding left of a spent budget."""


@dataclass(frozen=True)
class Wear:
    """One decision's place among those of its holdout.

    :param use: its number, from 1; ``None``: none was left.
    :param limit: how often the holdout may decide.
    :param share: of each gate's error probability, what this decision may spend: above 0 … 1, or 0 where no interval
        decides, as without a champion.
    :param decided: how often the holdout has decided, this time included.
    """

    use: int | None
    limit: int
    share: float
    decided: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


class _WornOut(Exception):
    """The holdout may not decide again."""

    def __init__(self, decided: int) -> None:
        self.decided = decided


def holdout_id(fingerprint: str, mask: np.ndarray) -> str:
    """Name a holdout by what it is: these rows of this content.

    :param fingerprint: of the snapshot's rows.
    :param mask: shape (n,), True where the row is held out.
    """
    return hashlib.sha256(fingerprint.encode() + np.packbits(mask).tobytes()).hexdigest()


def share_of(use: int, limit: int) -> float:
    """The share that use ``use`` (from 1) of ``limit`` may spend; over all uses they add up to 1."""
    return use**-2 / sum(k**-2 for k in range(1, limit + 1))


def claim_use(
    store: Store, pipeline: str, holdout: str, *, candidate: str, champion: int | None, limit: int, spends: bool = True
) -> Wear:
    """Count the decision between ``candidate`` (its digest) and ``champion`` on a holdout, once however often asked.

    Atomic: two decisions at the same time get two numbers. Where the limit was changed in between, no more is spent
    than is left.

    :param spends: whether an interval decides; one that does not is counted, and spends nothing.
    """
    log: Log[tuple[Entry, ...]] = Log(store, layout.holdout_prefix(pipeline, holdout))

    def left(entries: tuple[Entry, ...]) -> float:
        return 1 - sum(e.payload["share"] for e in entries)

    def check(entries: tuple[Entry, ...]) -> None:
        if len(entries) >= limit or (spends and left(entries) < _LEAST):
            raise _WornOut(len(entries))

    def payload(entries: tuple[Entry, ...]) -> dict[str, Any]:
        rank = 1 + sum(e.payload["share"] > 0 for e in entries)
        share = min(share_of(rank, limit), left(entries)) if spends else 0.0
        return {"candidate": candidate, "champion": champion, "share": share}

    try:
        entry = log.append("use", payload, op_id=op_id(holdout, candidate, champion, spends), check=check)
    except _WornOut as e:
        return Wear(None, limit, share_of(limit, limit), e.decided)
    return Wear(entry.seq, limit, entry.payload["share"], entry.seq)


def spends(gates: Iterable[Gate], champion: int | None) -> bool:
    """Whether an interval decides about any of these gates."""
    return any(
        (g.versus is not None and champion is not None) or g.max_gap is not None or g.confidence is not None
        for g in gates
    )


def stricter(gate: Gate, wear: Wear | None) -> Gate:
    """The gate at the confidence that is left to it."""
    if wear is None or not wear.share:
        return gate
    return gate.model_copy(update={"confidence": 1 - (1 - gate.level) * wear.share})


def with_wear(result: GateResult, gate: dict[str, Any], wear: Wear | None) -> GateResult:
    """The result of a gate whose intervals decide, told with the number of this use.

    :param gate: as it stands in the file.
    """
    if wear is None or wear.use is None or not wear.share:
        return replace(result, gate=gate)
    told = f"{result.sentence}; use {wear.use} of {wear.limit} of this holdout"
    return replace(result, gate=gate, sentence=told)


def worn_out(wear: Wear) -> GateResult:
    """What a holdout that may not decide again says of every candidate."""
    many = "once" if wear.decided == 1 else f"{wear.decided} times"
    return GateResult(
        gate={"holdout_uses": wear.limit},
        name="holdout",
        verdict="inconclusive",
        sentence=f"this holdout has decided {many}, and evaluate.holdout_uses is {wear.limit}: a fresh holdout is due"
        " (rows of another window, or new rows at the source)",
        value=float(wear.decided),
        threshold=float(wear.limit),
    )
