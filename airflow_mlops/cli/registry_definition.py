"""What ``airflow mlops registry`` offers; imported with every ``airflow`` command, like :mod:`.definition`."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

_PACKAGE = "airflow_mlops.cli"

MODELS = "churn, churn@champion, churn@challenger, churn:7, churn[KEY]:7"
_TABLE_OR_JSON = Arg(("--output",), choices=("table", "json"), default="table", help="(default: table)")
_TEXT_OR_JSON = Arg(("--output",), choices=("text", "json"), default="text", help="(default: text)")
_PIPELINE = Arg(("pipeline",), metavar="PIPELINE", help="Name of a pipeline")
_MODEL = Arg(("model",), metavar="MODEL", help=MODELS)
_VERSION = Arg(("model",), metavar="MODEL", help="A version: churn:7, or churn@challenger")
_EXPECTED = Arg(
    ("--expected",), metavar="N", required=True, help="The champion now; nothing is changed when it is another one"
)
_REASON = Arg(("--reason",), metavar="TEXT", required=True, help="Why; kept in the registry")
_CHANGE = (
    _REASON,
    Arg(("--no-wait",), action="store_true", help="Start the run, and do not wait for its end"),
    Arg(
        ("--break-glass",),
        action="store_true",
        help="Write to the registry directly, past Airflow's permissions, audit log, events and notifications; "
        "needs no database",
    ),
)
_THROUGH = (
    "Starts a run of the DAG PIPELINE__registry, waits for it and prints what came of it; so Airflow's permissions and "
    "audit log hold."
)


def _command(module: str, name: str, help: str, description: str, *args: Arg, function: str = "") -> ActionCommand:
    run = lazy_load_command(f"{_PACKAGE}.{module}.{function or name}")
    return ActionCommand(name=name, help=help, description=description, func=run, args=args)


REGISTRY = GroupCommand(
    name="registry",
    help="Versions of models: look at them, promote, roll back, bring in and out, and care for the store",
    subcommands=(
        _command(
            "registry",
            "list",
            "Every pipeline: champion, versions, last change; or the versions of one",
            "Of a fleet, its models; one of them as churn[KEY].",
            Arg(("pipeline",), metavar="PIPELINE", nargs="?", default=None, help="Default: every pipeline"),
            _TABLE_OR_JSON,
            function="list_",
        ),
        _command(
            "registry",
            "show",
            "One version: data, config, code, environment, metrics, verdicts, approvals, where its card is",
            "JSON is the whole record with its notes. Credentials in addresses are left out.",
            _MODEL,
            _TEXT_OR_JSON,
        ),
        _command(
            "registry",
            "history",
            "Every change of a pipeline's registry: what, when, by whom, why",
            "Registrations, answers of people, promotions, rollbacks, retirements, tags. One model of a fleet as "
            "churn[KEY].",
            _PIPELINE,
            Arg(("--notes",), action="store_true", help="Notes too: evaluations, gates, cards, costs, …"),
            _TABLE_OR_JSON,
        ),
        _command(
            "registry",
            "diff",
            "What differs between two versions: data, config, params, features, code, environment, metrics",
            "Also of two pipelines.",
            Arg(("a",), metavar="A", help=MODELS),
            Arg(("b",), metavar="B", help=MODELS),
            _TEXT_OR_JSON,
        ),
        _command(
            "registry_changes",
            "promote",
            "Make a version the champion",
            _THROUGH,
            _VERSION,
            Arg(
                ("--expected",),
                metavar="N",
                required=True,
                help="The champion now, or none; nothing is changed when it is another one",
            ),
            *_CHANGE,
        ),
        _command(
            "registry_changes",
            "rollback",
            "Return to the champion before",
            f"{_THROUGH} Repeated, it goes back step by step.",
            _PIPELINE,
            _EXPECTED,
            *_CHANGE,
        ),
        _command(
            "registry_changes",
            "retire",
            "Take a version out of use for ever",
            f"{_THROUGH} The champion cannot be retired.",
            _VERSION,
            *_CHANGE,
        ),
        _command(
            "registry_changes",
            "abort",
            "End the rollout of a version: the champion serves alone again",
            f"{_THROUGH} To take it to its end at once instead, promote it.",
            _VERSION,
            *_CHANGE,
        ),
        _command(
            "registry_changes",
            "tag",
            "Set or remove tags of a version",
            "Tags are for people and listings; they change nothing that is served, and are written directly.",
            _MODEL,
            Arg(("tags",), metavar="NAME=VALUE", nargs="*", help="Tags to set"),
            Arg(("--remove",), metavar="NAME", action="append", default=None, help="A tag to remove; may be repeated"),
        ),
        _command(
            "registry_care",
            "export",
            "Write versions as files that are read without this package, or show them in MLflow",
            "A folder for each version: the model's file, verified; its record as JSON; its card.",
            Arg(
                ("model",),
                metavar="PIPELINE[:N]",
                nargs="?",
                default=None,
                help="One version, or all of a pipeline (default: of every pipeline)",
            ),
            Arg(("-o", "--out"), metavar="DIR", default=None, help="Where to write; needed for files"),
            Arg(("--to",), choices=("files", "mlflow"), default="files", help="(default: files)"),
        ),
        _command(
            "registry_care",
            "import",
            "Take in a model that was trained elsewhere, as a version that is not promoted",
            "A .skops file is checked type by type. A .joblib, .pkl or .pickle file runs code when it is loaded: it "
            "is taken only with [mlops] allow_pickle and a signing key that is trusted here. A model of MLflow is "
            "fetched from the server of [mlops] mlflow_conn_id; nothing is loaded with MLflow.",
            Arg(
                ("source",),
                metavar="SOURCE",
                help="A .skops, .joblib, .pkl or .pickle file; or a model of MLflow: models:/NAME/3, "
                "models:/NAME@alias, models:/NAME/latest",
            ),
            Arg(("--pipeline",), metavar="NAME", required=True, help="The pipeline that gets the version"),
            Arg(("--key",), metavar="KEY", default=None, help="In a fleet, the model that gets the version"),
            Arg(
                ("--data",),
                metavar="SAMPLE",
                default=None,
                help="A CSV or Parquet file with rows as the model takes them; needed where the model does not say its "
                "columns, or not all of them are numbers",
            ),
            Arg(
                ("--target",), metavar="COLUMN", default=None, help="What it predicts (default: as the newest version)"
            ),
            Arg(("--positive",), metavar="CLASS", default=None, help="The class whose probability is reported"),
            Arg(
                ("--task",),
                choices=("classification", "regression"),
                default=None,
                help="Of a model of MLflow; needed for a pickle file there, which is not opened",
            ),
            Arg(
                ("--classes",),
                metavar="A,B",
                default=None,
                help="The classes in the model's order; needed for a pickle file in MLflow. Numbers where all are",
            ),
            Arg(
                ("--private",),
                metavar="COLUMN",
                action="append",
                default=[],
                help="A column of which nothing but the name may be told, as in data.private; may be repeated",
            ),
            function="import_",
        ),
        _command(
            "registry_care",
            "gc",
            "Delete what nothing names any more",
            "In two stages: to the trash, and from there after another grace period. With --dry-run it ends with 1 "
            "when there is something to do.",
            Arg(("--dry-run",), action="store_true", help="Change nothing; say what would be done"),
            Arg(("--grace",), metavar="DURATION", default="48h", help="How old things must be (default: 48h)"),
            _TEXT_OR_JSON,
        ),
        _command(
            "registry_care",
            "fsck",
            "Verify the store: what is damaged, what is still good, what to do",
            "Ends with 0 when all is sound and with 1 when something is not.",
            Arg(("pipelines",), metavar="PIPELINE", nargs="*", help="Default: the whole store"),
            Arg(
                ("--repair",),
                action="store_true",
                help="Take away worn hints and indexes, to be made anew; records and models are never changed",
            ),
            _TEXT_OR_JSON,
        ),
    ),
)
