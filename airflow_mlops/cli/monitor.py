"""``airflow mlops monitor …``: what was seen of what is served, and what came of it."""

from __future__ import annotations

import json
import shutil
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.exceptions import ConfigError

if TYPE_CHECKING:
    from airflow_mlops.ml.history import Period


@clear_errors
def history(args: Namespace) -> None:
    """``airflow mlops monitor history``."""
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.ml.history import history as read

    if args.last is not None and args.last < 1:
        raise ConfigError(f"--last {args.last} leaves nothing to show", hint="give 1 or more")
    hook = MLOpsHook()
    found = read(hook.store(), args.pipeline)
    if not found:
        raise ConfigError(
            f"nothing has been checked, trained or asked for {args.pipeline!r} in {hook.store_uri}",
            hint="check the name and [mlops] store, or run the pipeline first",
        )
    shown = found[-args.last :] if args.last else found
    if args.output == "json":
        print(json.dumps([one.to_dict() for one in shown], indent=2, ensure_ascii=False))
    else:
        width = shutil.get_terminal_size((80, 24)).columns
        print(textwrap.fill(f"{args.pipeline}: {_summary(found)}", max(width, 80)))
        print(render(shown, width=width))


def _summary(found: Sequence[Period]) -> str:
    requests = [request for one in found for request in one.requests]
    trainings = [training for one in found for training in one.trainings if training.go]
    granted = sum(request.granted for request in requests)
    counts = (
        _counted(len(found), "window"),
        f"{sum(bool(one.alarms) for one in found)} with an alarm",
        f"{_counted(granted, 'request')} granted",
        f"{len(requests) - granted} held back",
        _counted(len(trainings), "training"),
        f"{sum(bool(training.promoted) for training in trainings)} promoted",
    )
    return ", ".join(counts)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def render(found: Sequence[Period], *, width: int) -> str:
    """One row a window in at most ``width`` (80 or more) characters: what was seen, and what followed."""
    from airflow_mlops.cli.tables import grid, short
    from airflow_mlops.window import Window

    rows = []
    for one in found:
        start, end = one.window["start"], str(one.window["end"])
        window = short(Window.of(start, end)) if start else f"until {Window.of('0001-01-01', end).end}"
        rows.append((window, one.seen, one.followed))
    return grid(("window", "seen", "what followed"), rows, width=width, whole=("window",))
