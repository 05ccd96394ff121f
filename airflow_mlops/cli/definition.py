"""What ``airflow mlops`` offers. Every ``airflow`` command loads this module, so it imports next to nothing."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

from airflow_mlops.cli.delivery_definition import DELIVERY
from airflow_mlops.cli.fleet_definition import FLEET
from airflow_mlops.cli.registry_definition import MODELS, REGISTRY

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
PATHS = Arg(("paths",), nargs="+", metavar="PATH", help="Pipeline files and folders of them")
YAML = Arg(("file",), metavar="FILE", help="A pipeline file")
ENVIRONMENT = Arg(
    ("-e", "--environment"),
    metavar="NAME",
    default=None,
    help="Overlay of the file to put on top (default: the option environment of the section mlops)",
)
TABLE_OR_JSON = Arg(("--output",), choices=("table", "json"), default="table", help="(default: table)")
TEXT_OR_JSON = Arg(("--output",), choices=("text", "json"), default="text", help="(default: text)")


def _command(
    name: str, help: str, description: str, *args: Arg, module: str | None = None, function: str | None = None
) -> ActionCommand:
    called = lazy_load_command(f"airflow_mlops.cli.{module or name}.{function or name}")
    return ActionCommand(name=name, help=help, description=description, func=called, args=args)


def get_mlops_cli_commands() -> list[CLICommand]:
    """Return the ``mlops`` group for Airflow's command line."""
    return [
        GroupCommand(
            name="mlops",
            help="Machine learning pipelines",
            subcommands=(
                ActionCommand(
                    name="backfill",
                    help="Replay a pipeline of level 1 or 2 over past windows, in order, through the live scheduler",
                    description="For each window: predict with the champion, monitor, retrain where the pipeline "
                    "would have. The same command again goes on where an interrupted one stopped.",
                    func=lazy_load_command(f"{_COMMANDS}.backfill"),
                    args=(PIPELINE, FROM, TO, STEP, PROMOTE, REPLAY, FILE),
                ),
                *DELIVERY,
                _command(
                    "lint",
                    "Check pipeline files; nothing of theirs is run or imported",
                    "All problems at once, each with its place and what to do. Ends with 0 when there is no error, "
                    "1 when there is one, 2 when the command itself is wrong.",
                    PATHS,
                    Arg(("--output",), choices=("table", "json", "sarif"), default="table", help="(default: table)"),
                    Arg(("--strict",), action="store_true", help="Warnings count as errors"),
                    ENVIRONMENT,
                ),
                _command(
                    "schema",
                    "The JSON Schema of pipeline files, for an editor",
                    "Prints the JSON Schema, or writes it to a file.",
                    Arg(("-o", "--out"), metavar="FILE", default=None, help="Write it there"),
                    Arg(("--project",), action="store_true", help="That of project.yaml instead"),
                    module="commands",
                ),
                _command(
                    "new",
                    "Write a commented pipeline file to start from",
                    "With --from, names, types, candidates for the target and first expectations are read from the "
                    "data; without it the file works on example data.",
                    Arg(("name",), metavar="NAME", help="Name of the pipeline"),
                    Arg(("--level",), metavar="N", default="0", help="0, 1 or 2 (default: 0)"),
                    Arg(("--from",), dest="data", metavar="DATA", default=None, help="A CSV or Parquet file or glob"),
                    Arg(("--target",), metavar="COLUMN", default=None, help="The column to predict"),
                    Arg(("-o", "--out"), metavar="FILE", default=None, help="Default: NAME.yaml here"),
                    Arg(("--force",), action="store_true", help="Write over a file that is there"),
                ),
                _command(
                    "new-project",
                    "Write a git repository with one pipeline, its features, tests, environments and CI",
                    "What is written works as it is, on made-up data. A folder that is in use is refused.",
                    Arg(("folder",), metavar="DIR", help="An empty folder, or one that is not there yet"),
                    module="new_project",
                    function="new_project",
                ),
                _command(
                    "ci",
                    "Check a project and what a change does to its pipelines, before it is merged",
                    "Stages: lint, test, build, train, gates, contract; after one that fails the others are not begun. "
                    "Ends with 0, or with 3 to 8 for the stage that failed, in this order; with 1 when there is "
                    "nothing to check. Progress goes to standard error.",
                    Arg(
                        ("folder",),
                        metavar="DIR",
                        nargs="?",
                        default=".",
                        help="The project (default: the folder here)",
                    ),
                    Arg(
                        ("--changed-since",),
                        metavar="REF",
                        default=None,
                        help="Train and compare only pipelines that changed since the branch left this commit, branch "
                        "or tag (default: train all, compare none)",
                    ),
                    TEXT_OR_JSON,
                    Arg(("--report",), metavar="FILE.md", default=None, help="Write a report for the pull request"),
                    Arg(("--junit",), metavar="FILE.xml", default=None, help="Write the results as JUnit's XML"),
                    Arg(
                        ("--bundle",),
                        metavar="FILE.zip",
                        default=None,
                        help="Keep the bundle there, if all stages pass",
                    ),
                    Arg(
                        ("--sample",),
                        metavar="N",
                        type=int,
                        default=5000,
                        help="Train on at most N rows (default: 5000); of a fleet, those of some keys",
                    ),
                    Arg(("--from",), dest="start", metavar="DATE", default=None, help="Start of the data window"),
                    Arg(("--to",), dest="end", metavar="DATE", default=None, help="End of it; not part of it"),
                    Arg(
                        ("--data-root",),
                        metavar="DIR",
                        default=None,
                        help="Where relative data paths start (default: DIR/data if it is there, else the option "
                        "data_root of the section mlops)",
                    ),
                    Arg(
                        ("--test-timeout",),
                        metavar="SECONDS",
                        type=float,
                        default=600.0,
                        help="Kill the project's tests after this (default: 600)",
                    ),
                    Arg(
                        ("--train-timeout",),
                        metavar="SECONDS",
                        type=float,
                        default=1800.0,
                        help="Kill a training after this (default: 1800)",
                    ),
                    ENVIRONMENT,
                ),
                _command(
                    "run",
                    "Run a pipeline's training here, from data to verdict, without scheduler and database",
                    "The same steps as the DAG NAME__train. Nothing is registered unless --register is given.",
                    YAML,
                    Arg(
                        ("--sample",),
                        metavar="N",
                        type=int,
                        default=None,
                        help="Work on at most N rows; of a fleet, those of some keys",
                    ),
                    Arg(("--from",), dest="start", metavar="DATE", default=None, help="Start of the data window"),
                    Arg(("--to",), dest="end", metavar="DATE", default=None, help="End of it; not part of it"),
                    Arg(
                        ("--data-root",),
                        metavar="DIR",
                        default=None,
                        help="Where relative data paths start (default: the option data_root of the section mlops)",
                    ),
                    Arg(
                        ("--key",),
                        metavar="KEY",
                        action="append",
                        default=None,
                        help="Of a fleet, train this key alone; can be given several times",
                    ),
                    Arg(("--register",), action="store_true", help="Register the candidate in the store"),
                    Arg(("--reports",), metavar="DIR", default=None, help="Write the reports there, as HTML"),
                    ENVIRONMENT,
                ),
                _command(
                    "experiment",
                    "Run a pipeline's experiment here, without scheduler and database",
                    "The same steps as the DAG NAME__experiment, one trial after the other. Nothing is recorded unless "
                    "--register is given; with it, a command that was stopped goes on where it was.",
                    YAML,
                    Arg(("--n-trials",), metavar="N", type=int, default=None, help="Instead of experiment.n_trials"),
                    Arg(
                        ("--strategy",),
                        choices=("random", "halving", "all"),
                        default=None,
                        help="Instead of experiment.strategy",
                    ),
                    Arg(
                        ("--set",),
                        action="append",
                        metavar="KEY=VALUES",
                        default=None,
                        help="Other values of a parameter of the space: max_depth=4 or max_depth='[2, 4, 8]'; may be "
                        "given several times",
                    ),
                    Arg(("--sample",), metavar="N", type=int, default=None, help="Work on at most N rows"),
                    Arg(("--from",), dest="start", metavar="DATE", default=None, help="Start of the data window"),
                    Arg(("--to",), dest="end", metavar="DATE", default=None, help="End of it; not part of it"),
                    Arg(
                        ("--data-root",),
                        metavar="DIR",
                        default=None,
                        help="Where relative data paths start (default: the option data_root of the section mlops)",
                    ),
                    Arg(
                        ("--register",),
                        action="store_true",
                        help="Record the trials, and register the winner, in the store",
                    ),
                    Arg(("--reports",), metavar="DIR", default=None, help="Write the reports there, as HTML"),
                    ENVIRONMENT,
                ),
                _command(
                    "upgrade",
                    "Rewrite files of an older schema version; comments stay",
                    "Rewrites the files in place, or with --check only says which it would rewrite, with exit code 1.",
                    Arg(("files",), nargs="+", metavar="FILE", help="Pipeline files"),
                    Arg(("--check",), action="store_true", help="Change nothing; show what would change"),
                ),
                _command(
                    "describe",
                    "Every effective value and where it was set, and the DAGs and tasks of a file",
                    "Values come from the models' defaults, the files it extends, the file, and the environment.",
                    YAML,
                    Arg(("--output",), choices=("text", "json", "mermaid"), default="text", help="(default: text)"),
                    ENVIRONMENT,
                ),
                _command(
                    "plan",
                    "What a change of level adds and removes, and what is missing for it; changes nothing",
                    "Levels by their number, or in other models' names: aws:reliable, microsoft:3.",
                    YAML,
                    Arg(("--level",), metavar="N", required=True, help="The level to plan for"),
                    TEXT_OR_JSON,
                    ENVIRONMENT,
                ),
                _command(
                    "assess",
                    "The maturity that recent runs have really exercised",
                    "From run records alone: nothing counts because it is written in a file.",
                    Arg(("pipelines",), nargs="*", metavar="PIPELINE", help="Default: every pipeline in the store"),
                    Arg(("--days",), metavar="N", type=int, default=90, help="What counts as recent (default: 90)"),
                    TEXT_OR_JSON,
                ),
                _command(
                    "loaders",
                    "Write loader files that share a large folder of pipelines",
                    "Airflow gives one loader file 30 seconds; many small ones are also parsed side by side.",
                    Arg(("folder",), metavar="FOLDER", help="The folder with the pipeline files"),
                    Arg(("--count",), metavar="N", type=int, default=None, help="How many (default: by the files)"),
                    Arg(("-o", "--out"), metavar="DIR", default=None, help="Default: beside the folder"),
                    Arg(("--check",), action="store_true", help="Change nothing; end with 1 if they need writing"),
                ),
                _command(
                    "rerun",
                    "Train a version, or all models of a fleet's training, again from the record, and compare",
                    "From the recorded snapshot, configuration, seed and code, with the library itself: no scheduler, "
                    "and nothing is registered. Data, configuration, code, environment, metrics, predictions and the "
                    "model's bytes are compared; of a fleet, named by its pipeline alone, those of every model that "
                    "the newest training made. Ends with 1 when it cannot be trained again.",
                    Arg(
                        ("model",),
                        metavar="MODEL",
                        help=MODELS,
                    ),
                    Arg(
                        ("--run",),
                        metavar="RUN_ID",
                        default=None,
                        help="Of a fleet: another training than the newest, by its run id in Airflow",
                    ),
                    Arg(
                        ("--verify",),
                        action="store_true",
                        help="End with 1 when data, configuration, code, metrics or predictions differ",
                    ),
                    Arg(
                        ("--folder",),
                        metavar="DIR",
                        default=None,
                        help="Where train.command runs (default: where its files were)",
                    ),
                    Arg(
                        ("--allow-command",),
                        action="store_true",
                        help="Run the command that the record names, if there is one, as you",
                    ),
                    TEXT_OR_JSON,
                ),
                _command(
                    "lineage",
                    "Where a version came from and what became of it, or which versions used a snapshot, file or code",
                    "One of MODEL, --snapshot, --data and --code. The last three look through every pipeline of the "
                    "store.",
                    Arg(
                        ("model",),
                        metavar="MODEL",
                        nargs="?",
                        default=None,
                        help=MODELS,
                    ),
                    Arg(
                        ("--snapshot",),
                        metavar="DIGEST",
                        default=None,
                        help="A snapshot or its fingerprint: the first 6 digits or more",
                    ),
                    Arg(
                        ("--data",),
                        metavar="FILE_OR_URI",
                        default=None,
                        help="A source file, a source as the pipeline names it, or everything below a folder/",
                    ),
                    Arg(
                        ("--code",),
                        metavar="SHA",
                        default=None,
                        help="A git commit, a source file's sha256 (6 digits or more), or a source file",
                    ),
                    TEXT_OR_JSON,
                ),
                REGISTRY,
                GroupCommand(
                    name="monitor",
                    help="What was seen of what is served",
                    subcommands=(
                        _command(
                            "history",
                            "One table: what the checks of each window saw, and what followed",
                            "Every alarm and every silence with its reason: requests for training, what was held back "
                            "and until when, claims, and trainings with their verdicts. Rehearsals are left out.",
                            PIPELINE,
                            Arg(
                                ("--last",),
                                metavar="N",
                                type=int,
                                default=None,
                                help="Only the last N windows (default: all)",
                            ),
                            TABLE_OR_JSON,
                            module="monitor",
                        ),
                    ),
                ),
                FLEET,
                GroupCommand(
                    name="bundle",
                    help="Bundles of a project",
                    subcommands=(
                        _command(
                            "verify",
                            "Check a bundle's bytes and signature, and say what it is",
                            "Nothing in it is imported or run. Ends with 1 when it was changed after it was built, or "
                            "is not signed as [mlops] trusted_keys and allow_unsigned ask.",
                            Arg(("file",), metavar="FILE", help="The bundle"),
                            Arg(("--digest",), metavar="SHA256", default=None, help="The sha256 that it must have"),
                            Arg(("--unpack",), metavar="DIR", default=None, help="Write its files to this new folder"),
                            TEXT_OR_JSON,
                            module="bundle",
                        ),
                    ),
                ),
                GroupCommand(
                    name="keys",
                    help="Keys that models are signed with",
                    subcommands=(
                        _command(
                            "new",
                            "Make a key to sign models with",
                            "Writes the private key to a file that only you may read, and prints the public key, its "
                            "id and what to configure. A file that is there is never written over.",
                            Arg(
                                ("-o", "--out"),
                                metavar="FILE",
                                default="mlops_signing_key.pem",
                                help="The private key's file (default: mlops_signing_key.pem here)",
                            ),
                            module="keys",
                        ),
                        _command(
                            "show",
                            "Print the public key and its id of a key file, or of the configured keys",
                            "Of a private key only the public half is printed.",
                            Arg(
                                ("file",),
                                metavar="FILE",
                                nargs="?",
                                default=None,
                                help="A private or public key file (PEM); default: what is configured",
                            ),
                            module="keys",
                        ),
                    ),
                ),
            ),
        )
    ]
