"""The reference page of the commands: ``python -m airflow_mlops.cli.reference > docs/reference/cli.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

from airflow_mlops.cli.definition import get_mlops_cli_commands

HEAD = """\
# Commands

`airflow mlops …`, where Airflow's configuration is that of the deployment. This page is made from the commands
themselves; `airflow mlops COMMAND --help` tells the same arguments. An error is one message and exit code 1; a command
that is not understood ends with 2.
"""
MORE = {
    "assess": "What counts for a level, and what each capability asks for: [levels](../explanation/levels.md).",
    "backfill": "Prints a line a window and a table at the end. Ctrl-C ends the command with exit code 130; the run in "
    "flight goes on. [How](../how-to/backfill.md).",
    "bundle verify": "[How](../how-to/pipeline-ci.md#the-bundle).",
    "ci": "Stages, exit codes, what counts as changed and what is compared: [how](../how-to/pipeline-ci.md).",
    "describe": "Where values come from: [environments](../how-to/environments.md). Values of secrets are not shown.",
    "fleet bundle": "[How](../how-to/fleets.md#hand-the-models-over).",
    "fleet failures": "[How](../how-to/fleets.md#what-became-of-them).",
    "fleet show": "[How](../how-to/fleets.md#what-became-of-them).",
    "fleet status": "[How](../how-to/fleets.md#what-became-of-them).",
    "keys new": "What is signed, and what is refused then: [sign models](../how-to/sign-models.md).",
    "lint": "In an editor, before a commit and in CI: [how](../how-to/check-files.md).",
    "monitor history": "What holds a training back, and what counts as a confirmation: "
    "[when a pipeline trains again](../explanation/retraining.md).",
    "loaders": "When and how: [many pipelines](../how-to/many-pipelines.md).",
    "lineage": "[How](../how-to/rerun-the-past.md).",
    "rerun": "[How](../how-to/rerun-the-past.md).",
    "new-project": "What is in it: [how](../how-to/pipeline-ci.md#a-project).",
    "registry diff": "Only what differs is shown; parts that are equal are named.",
    "registry rollback": "[How](../how-to/roll-back.md), also through Airflow's UI and REST API.",
    "run": "From a notebook and in tests: [how](../how-to/run-locally.md).",
    "schema": "In an editor: [how](../how-to/check-files.md).",
    "status": "How many versions there are, which one is champion, and one line per window: rows scored, drift, "
    "champion, its metric, what asked for a retrain (in brackets: not granted), the gates' verdict and the reason.",
}
TAIL = """\
## Without an Airflow command

| Command | Does |
|---|---|
| `make demo` | both demo pipelines in a real Airflow; `PORT=`, `UI=0`. `LEVEL=2`: commits through two Airflows |
| `make test` | unit, integration and system tests |
| `make fuzz` | 20,000 mutated pipeline files |
| `make bench` | the [benchmarks](../../benchmarks/README.md) |
| `python -m airflow_mlops.demo --help` | the demo with another home, fewer months, other DAGs |
"""


def page() -> str:
    """The page, in Markdown."""
    (group,) = (command for command in get_mlops_cli_commands() if isinstance(command, GroupCommand))
    parts = [HEAD]
    parts += [_section(name, command) for name, command in _commands(group.name, group)]
    return "\n".join([*parts, TAIL])


def _commands(name: str, group: GroupCommand) -> Iterator[tuple[str, ActionCommand]]:
    """Each command of a group and of the groups in it, with the name of the group that it is in."""
    for command in sorted(group.subcommands, key=lambda c: c.name):
        if isinstance(command, GroupCommand):
            yield from _commands(f"{name} {command.name}", command)
        else:
            yield name, command


def _section(group: str, command: ActionCommand) -> str:
    arguments = list(command.args)
    needed = [_use(arg) for arg in arguments if not arg.flags[0].startswith("-") or arg.kwargs.get("required")]
    heading = " ".join(["airflow", group, command.name, *needed])
    lines = [f"## `{heading}`", "", f"{command.help}.", ""]
    if command.description:
        lines += [command.description, ""]
    name = " ".join([*group.split()[1:], command.name])
    if name in MORE:
        lines += [MORE[name], ""]
    if arguments:
        lines += ["| Argument | Meaning |", "|---|---|", *(_row(arg) for arg in arguments), ""]
    return "\n".join(lines)


def _use(arg: Arg) -> str:
    name = _value(arg) if not arg.flags[0].startswith("-") else f"{arg.flags[-1]} {_value(arg)}"
    return {"+": f"{name}…", "*": f"[{name}…]", "?": f"[{name}]"}.get(str(arg.kwargs.get("nargs")), name)


def _value(arg: Arg) -> str:
    if choices := arg.kwargs.get("choices"):
        return " or ".join(choices)
    return str(arg.kwargs.get("metavar") or arg.flags[-1].lstrip("-").upper().replace("-", "_"))


def _row(arg: Arg) -> str:
    takes = "" if arg.kwargs.get("action") else f" {_value(arg)}"
    # The long form first: tests and people look for it.
    flags = sorted(arg.flags, key=len, reverse=True)
    shown = [f"`{flag}{takes}`" for flag in flags] if flags[0].startswith("-") else [f"`{_value(arg)}`"]
    return f"| {', '.join(shown)} | {str(arg.kwargs.get('help', '')).replace('|', '¦').replace('%%', '%')} |"


def main() -> None:
    """Print the page."""
    sys.stdout.write(page())


if __name__ == "__main__":
    main()
