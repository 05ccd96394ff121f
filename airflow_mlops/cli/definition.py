"""What ``airflow mlops`` offers. Every ``airflow`` command loads this module, so it imports next to nothing."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

_COMMANDS = "airflow_mlops.cli.commands"

PIPELINE = Arg(("pipeline",), help="Name of the pipeline, as in its file")
FILE = Arg(
    ("--file",), metavar="PATH", default=None, help="The pipeline's YAML file; default: found beside the DAG's loader"
)
FROM = Arg(
    ("--from",), dest="start", metavar="DATE", required=True, help="Start of the first window, such as 2013-01-01"
)
TO = Arg(("--to",), dest="end", metavar="DATE", required=True, help="End of the last window; not part of it")
STEP = Arg(("--step",), choices=("month", "week", "day"), default="month", help="Length of a window (default: month)")
PROMOTE = Arg(
    ("--promote",),
    action="store_true",
    help="Promote, notify and spend the retrain budget; without it nothing that is served changes",
)
REPLAY = Arg(
    ("--replay",),
    metavar="NAME",
    default=None,
    help="Name of this replay; the same name goes on where it stopped (default: made from the dates)",
)


def get_mlops_cli_commands() -> list[CLICommand]:
    """Return the ``mlops`` group for Airflow's command line."""
    return [
        GroupCommand(
            name="mlops",
            help="Machine learning pipelines",
            subcommands=(
                ActionCommand(
                    name="backfill",
                    help="Replay a pipeline of level 1 over past windows, in order, through the live scheduler",
                    description="For each window: predict with the champion, monitor, retrain where the pipeline "
                    "would have. The same command again goes on where an interrupted one stopped.",
                    func=lazy_load_command(f"{_COMMANDS}.backfill"),
                    args=(PIPELINE, FROM, TO, STEP, PROMOTE, REPLAY, FILE),
                ),
                ActionCommand(
                    name="status",
                    help="One table: windows, drift, champions, what triggered a retrain and what the gates said",
                    func=lazy_load_command(f"{_COMMANDS}.status"),
                    args=(PIPELINE,),
                ),
                ActionCommand(
                    name="schema",
                    help="Print the JSON Schema of pipeline files, for an editor",
                    func=lazy_load_command(f"{_COMMANDS}.schema"),
                    args=(),
                ),
            ),
        )
    ]
