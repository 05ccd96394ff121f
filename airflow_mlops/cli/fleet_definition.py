"""What ``airflow mlops fleet`` offers; imported with every ``airflow`` command, like :mod:`.definition`."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

FLEET_STATUSES = ("passed", "no_baseline", "inconclusive", "rejected", "failed", "fallback", "retired")
PRINTED = ("promoted", "not due")
"""What a sentence counts too, and no row has as its status."""
_TABLE_OR_JSON = Arg(("--output",), choices=("table", "json"), default="table", help="(default: table)")
_TEXT_OR_JSON = Arg(("--output",), choices=("text", "json"), default="text", help="(default: text)")
_PIPELINE = Arg(("pipeline",), help="Name of the pipeline, as in its file")


def _command(name: str, help: str, description: str, *args: Arg) -> ActionCommand:
    run = lazy_load_command(f"airflow_mlops.cli.fleet.{name}")
    return ActionCommand(name=name, help=help, description=description, func=run, args=args)


FLEET = GroupCommand(
    name="fleet",
    help="Pipelines with one model per key",
    subcommands=(
        _command(
            "status",
            "What the newest training of a fleet came to",
            "Counts of keys by what became of them, how the scores are spread, and the run.",
            _PIPELINE,
            _TEXT_OR_JSON,
        ),
        _command(
            "failures",
            "The keys without a new champion, each with its reason",
            "Of the newest training: keys that failed, were rejected, or whose rows did not decide.",
            _PIPELINE,
            Arg(
                ("--status",),
                action="append",
                choices=(*FLEET_STATUSES, *PRINTED),
                default=None,
                help="Keys of this status instead; can be given several times",
            ),
            Arg(("--limit",), metavar="N", type=int, default=None, help="At most N keys (default: all)"),
            _TABLE_OR_JSON,
        ),
        _command(
            "drift",
            "The keys that the newest drift check alarmed about",
            "Each alarm with its column, the size of the change and its p-value, least likely first.",
            _PIPELINE,
            Arg(
                ("--limit",),
                metavar="N",
                type=int,
                default=None,
                help="At most N alarms (default: all)",
            ),
            _TABLE_OR_JSON,
        ),
        _command(
            "show",
            "One key: who serves it, what its newest training came to, its versions",
            "A key whose name is not known is answered with the nearest ones.",
            _PIPELINE,
            Arg(("key",), metavar="KEY", help="The key, such as LGA"),
            _TEXT_OR_JSON,
        ),
        _command(
            "bundle",
            "Hand the champions of a fleet over as one zip that needs neither Airflow nor this package",
            "All models, or those of some keys, with a script that predicts each row by the model of "
            "its key. Signatures and digests are checked before a model goes in, and by the script.",
            _PIPELINE,
            Arg(
                ("--key",),
                metavar="KEY",
                action="append",
                default=None,
                help="The model of this key alone; can be given several times (default: all)",
            ),
            Arg(("-o", "--out"), metavar="FILE.zip", required=True, help="The file to write"),
        ),
    ),
)
