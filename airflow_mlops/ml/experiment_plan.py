"""Which trials an experiment runs, decided before the first one and seeded: the same file gives the same trials."""

from __future__ import annotations

import difflib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from airflow_mlops.config.models import Experiment, Features, Halving, Train
from airflow_mlops.config.models.experiment import MOST_TRIALS
from airflow_mlops.exceptions import ConfigError

LEAST_ROWS = 100
"""Of the first rung, where ``halving.min_resource`` does not say it: fewer rows tell models apart by chance."""

# Beyond this many combinations a range has no length in Python.
_COUNTABLE = 2**62


@dataclass(frozen=True)
class Candidate:
    """A variant with everything settled.

    :param train: how it is trained, for a model; the trial's parameters come on top.
    :param features: path of its feature code.
    :param space: parameter → the values to choose from; empty: there is one combination.
    """

    name: str
    train: Train | None
    features: str | None
    space: dict[str, list[Any]]

    @property
    def size(self) -> int:
        """How many combinations there are."""
        return math.prod(len(values) for values in self.space.values())

    def at(self, index: int) -> dict[str, Any]:
        """The combination number ``index``, from 0; the last parameter turns fastest."""
        chosen = {}
        for name, values in reversed(self.space.items()):
            index, place = divmod(index, len(values))
            chosen[name] = values[place]
        return {name: chosen[name] for name in self.space}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        train = self.train.model_dump(mode="json", exclude={"resources"}) if self.train else None
        return {"name": self.name, "train": train, "features": self.features, "space": self.space}


@dataclass(frozen=True)
class Trial:
    """One combination; ``number`` counts from 1."""

    number: int
    candidate: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Rung:
    """One step of an experiment; every strategy but halving has one.

    :param number: from 1.
    :param trials: how many run in it: the best so many of the rung before.
    :param resource: what is rationed, ``None`` where nothing is.
    :param share: of the most that there is of it: above 0 … 1.
    :param least: no trial gets less. :param most: … or more; ``None`` for rows: all of them.
    """

    number: int
    trials: int
    resource: str | None = None
    share: float = 1.0
    least: int = 1
    most: int | None = None


def candidates_of(experiment: Experiment, train: Train | None, features: Features | None) -> tuple[Candidate, ...]:
    """Settle the candidates: each is the pipeline's own model with its differences on top.

    A candidate with an estimator of its own takes no parameters and no space of the pipeline's.
    """
    own = features.callable if features else None
    if experiment.callable:
        return (Candidate(experiment.callable.rpartition(":")[2], None, None, dict(experiment.space or {})),)
    if train is None:
        raise ConfigError("the experiment has no model to vary", hint="give `train`, or `experiment.callable`")
    base = train.model_copy(update={"search": None})
    if not experiment.candidates:
        return (Candidate(_called(base), base, own, dict(experiment.space or {})),)
    found: list[Candidate] = []
    for given in experiment.candidates:
        if given.estimator:
            changed = {"estimator": given.estimator, "callable": None, "command": None, "params": given.params}
            space = given.space or {}
        else:
            changed = {"params": {**base.params, **given.params}}
            space = given.space or experiment.space or {}
        settled = Train.model_validate(
            base.model_dump(exclude_none=True) | changed | ({"window": given.window} if given.window else {})
        )
        name = given.name or _called(settled)
        taken = {c.name for c in found} | {c.name for c in experiment.candidates if c is not given}
        number = 2
        while name in taken and given.name is None:
            name, number = f"{_called(settled)} {number}", number + 1
        found.append(Candidate(name, settled, given.features or own, dict(space)))
    return tuple(found)


def _called(train: Train) -> str:
    return str(train.estimator or train.callable or train.command).replace(":", ".").rpartition(".")[2]


def overridden(
    experiment: Experiment,
    space: Mapping[str, Sequence[Any]],
    *,
    n_trials: int | None = None,
    strategy: str | None = None,
) -> Experiment:
    """The experiment with other values for parameters of its spaces, another number of trials or strategy.

    :raises ConfigError: no space has the parameter, or what is set does not fit the rest.
    """
    given = experiment.model_dump(by_alias=True, exclude_unset=True)
    if strategy is not None and strategy != experiment.strategy:
        given["strategy"] = strategy
        # What belongs to the other strategy.
        for key in {"all": ("n_trials", "halving"), "random": ("halving",), "halving": ("early_stop",)}[strategy]:
            given.pop(key, None)
    if n_trials is not None:
        given["n_trials"] = n_trials
    spaces = [s for s in (given.get("space"), *(c.get("space") for c in given.get("candidates", ()))) if s]
    known = dict.fromkeys(name for one in spaces for name in one)
    for name, values in space.items():
        if name not in known:
            near = difflib.get_close_matches(name, [*known], 1)
            raise ConfigError(
                f"no space of this experiment has {name!r}",
                hint=(f"did you mean {near[0]!r}? " if near else "") + f"There are: {', '.join(known) or 'none'}",
            )
        if not values:
            raise ConfigError(f"there is no value for {name!r}", hint="give at least one")
        for one in spaces:
            if name in one:
                one[name] = list(values)
    try:
        return Experiment.model_validate(given)
    except ValidationError as e:
        said = "; ".join(str(d["ctx"]["error"] if "error" in d.get("ctx", {}) else d["msg"]) for d in e.errors())
        raise ConfigError(f"the experiment cannot be changed so: {said}", hint="see the `experiment` section") from e


def draw_trials(experiment: Experiment, candidates: Sequence[Candidate]) -> tuple[Trial, ...]:
    """The trials in their order: candidates take turns, and no combination comes twice.

    ``random`` and ``halving`` share ``n_trials`` evenly; what a small space cannot take goes to the others.

    :raises ConfigError: ``strategy: all`` over more combinations than there may be trials.
    """
    if experiment.strategy == "all":
        total = sum(c.size for c in candidates)
        if total > MOST_TRIALS:
            raise ConfigError(
                f"strategy: all is {total:,} trials, and an experiment has at most {MOST_TRIALS:,}",
                hint="take strategy: random or halving, or fewer values",
            )
        counts = [c.size for c in candidates]
    else:
        counts = _shared(experiment.n_trials, [c.size for c in candidates])
    drawn = [
        iter([c.at(i) for i in _indices(c, count, experiment)]) for c, count in zip(candidates, counts, strict=True)
    ]
    return tuple(
        Trial(number, candidate, params)
        for number, (candidate, params) in enumerate(_in_turn([c.name for c in candidates], drawn), 1)
    )


def _shared(total: int, sizes: Sequence[int]) -> list[int]:
    counts = [0] * len(sizes)
    left = min(total, sum(sizes))
    while left:
        for i, size in enumerate(sizes):
            if left and counts[i] < size:
                counts[i] += 1
                left -= 1
    return counts


def _indices(candidate: Candidate, count: int, experiment: Experiment) -> list[int]:
    if experiment.strategy == "all":
        return list(range(candidate.size))
    draw = random.Random(f"airflow-mlops experiment {experiment.seed} {candidate.name}")  # noqa: S311 - no secret
    if candidate.size <= _COUNTABLE:
        return draw.sample(range(candidate.size), count)
    found: dict[int, None] = {}
    while len(found) < count:
        found[draw.randrange(candidate.size)] = None
    return list(found)


def _in_turn(names: Sequence[str], drawn: Sequence[Iterator[dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    waiting = list(zip(names, drawn, strict=True))
    while waiting:
        left = []
        for name, params in waiting:
            one = next(params, None)
            if one is not None:
                yield name, one
                left.append((name, params))
        waiting = left


def rungs_of(experiment: Experiment, trials: int, count: int) -> tuple[Rung, ...]:
    """The rungs: each has ``1/factor`` of the trials of the one before, and ``factor`` times the resource.

    So every rung costs about the same, as successive halving has it: Karnin, Koren & Somekh (2013), "Almost optimal
    exploration in multi-armed bandits", *ICML*, 1238-1246; Jamieson & Talwalkar (2016), "Non-stochastic best arm
    identification and hyperparameter optimization", *AISTATS*, 240-248. With another factor than 2: Li, Jamieson,
    DeSalvo, Rostamizadeh & Talwalkar (2018), "Hyperband", *JMLR* 18(185).
    """
    if experiment.strategy != "halving":
        return (Rung(1, trials),)
    halving = experiment.halving or Halving()
    least = halving.min_resource or (LEAST_ROWS if halving.resource == "rows" else 1)
    return tuple(
        Rung(
            number=i + 1,
            trials=max(1, trials // halving.factor**i),
            resource=halving.resource,
            share=float(halving.factor) ** (i - count + 1),
            least=least,
            most=halving.max_resource,
        )
        for i in range(count)
    )


def amount(rung: Mapping[str, Any], available: int) -> int:
    """How much of its resource a trial of a rung gets.

    :param available: the most that there is: rows of the training part; for a parameter what ``max_resource`` says.
    """
    most = min(available, rung["most"]) if rung["most"] is not None else available
    return max(min(rung["least"], most), math.ceil(most * rung["share"] - 1e-9))


def plan_document(experiment: Experiment, candidates: Sequence[Candidate], rungs: int, **more: Any) -> dict[str, Any]:
    """The plan as plain JSON: everything that a trial has to know, wherever it runs."""
    trials = draw_trials(experiment, candidates)
    return {
        "format": 1,
        "strategy": experiment.strategy,
        "callable": experiment.callable,
        "validation": experiment.validation,
        "early_stop": experiment.early_stop.model_dump() if experiment.early_stop else None,
        "budget": experiment.budget,
        "seed": experiment.seed,
        "candidates": [c.to_dict() for c in candidates],
        "trials": [asdict(t) for t in trials],
        "rungs": [asdict(r) for r in rungs_of(experiment, len(trials), rungs)],
        **more,
    }
