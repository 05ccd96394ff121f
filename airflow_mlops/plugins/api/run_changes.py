"""What would change the verdict of a run's gates, as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_mlops.plugins.api.models import GateLine
from airflow_mlops.plugins.api.rows import gate_lines


def what_would_change(note: dict[str, Any], evaluation: dict[str, Any]) -> Iterator[str]:
    """A sentence for each gate that did not pass.

    :param note: ``gates`` of the run's version; ``evaluation`` likewise.
    """
    holdout = evaluation.get("rows")
    had = f" (there were {holdout:,})" if holdout is not None else ""
    for line, result in zip(gate_lines(note), note.get("results") or (), strict=True):
        if line.verdict == "inconclusive":
            yield _undecided(line, had, result.get("reference") or {})
        elif line.verdict == "rejected":
            yield _missed(line)


def _undecided(line: GateLine, had: str, reference: dict[str, Any]) -> str:
    """What would decide a gate.

    :param reference: what the gate kept about the version that losses are counted from, beside the champion.
    """
    version, needed = reference.get("version"), reference.get("needed")
    if version is not None and needed:
        names = {"champion": "the champion", "reference": f"v{version}, the reference"}
        said = [f"{_about(rows)} against {names[who]}" for who, rows in needed.items()]
        return f"{line.name}: what would decide it is {', and '.join(said)}{had}"
    if line.needed_rows is None:
        return f"{line.name}: more holdout rows{had}; how many cannot be said"
    if version is not None and needed is None:
        # Of before both were kept: it is the champion's, where that comparison was undecided, else the other's.
        most = f"the comparison with v{version}, the reference, can need more"
        return f"{line.name}: {_about(line.needed_rows)} at least{had}; {most}"
    return f"{line.name}: {_about(line.needed_rows)} would decide it{had}"


def _about(rows: int | None) -> str:
    """An estimate: two figures are as much as it can carry."""
    return f"about {int(float(f'{rows:.2g}')):,} holdout rows" if rows is not None else "more rows than can be said"


def _missed(line: GateLine) -> str:
    if line.value is None or line.threshold is None:
        return line.sentence
    bounds = f" ({line.low:.4g} to {line.high:.4g})" if line.low is not None and line.high is not None else ""
    return f"{line.name}: it was {line.value:.4g}{bounds}, the limit is {line.threshold:.4g}"
