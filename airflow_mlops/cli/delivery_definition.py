"""The commands that deliver a project; imported by every ``airflow`` command, so it imports next to nothing."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, lazy_load_command

_TEXT_OR_JSON = Arg(("--output",), choices=("text", "json"), default="text", help="(default: text)")
_PROJECT = Arg(("--project",), metavar="DIR", default=".", help="Folder with project.yaml (default: the folder here)")
_NO_VERIFY = Arg(
    ("--no-verify",), dest="verify", action="store_false", help="Do not ask the environment's Airflow what it runs"
)


def _environment(required: bool) -> Arg:
    more = "" if required else " (default: all)"
    return Arg(
        ("--env",), metavar="NAME", required=required, default=None, help=f"An environment of project.yaml{more}"
    )


def _command(name: str, help: str, description: str, *args: Arg) -> ActionCommand:
    called = lazy_load_command(f"airflow_mlops.cli.deliveries.{name}")
    return ActionCommand(name=name, help=help, description=description, func=called, args=args)


DELIVERY = (
    _command(
        "deploy",
        "Bring a project's bundle into an environment, and see that it runs there",
        "One commit on the environment's branch, whole or not at all; then its Airflow is asked until it runs it, and "
        "the smoke runs of project.yaml must be green. If not, it returns to the deployment before by itself. Ends "
        "with 0; with 1 when nothing was deployed; with 3 when it was taken back again; with 4 when it is there, "
        "and nobody can say that it works. The same command again deploys nothing twice.",
        Arg(
            ("bundle",),
            metavar="BUNDLE",
            nargs="?",
            default=None,
            help="The file that `airflow mlops ci --bundle` wrote",
        ),
        Arg(
            ("--from",),
            dest="source",
            metavar="NAME",
            default=None,
            help="Instead of a file: the bundle that is deployed to this environment",
        ),
        _environment(True),
        Arg(
            ("--ref",),
            metavar="REF",
            default=None,
            help="The branch or tag that the bundle was built from; refused if it has moved, here and in what follows",
        ),
        Arg(("--reason",), metavar="TEXT", default=None, help="Why; kept in the history"),
        Arg(
            ("--break-glass",),
            action="store_true",
            help="Without the approval that project.yaml asks for, and though the environment before has not had it; "
            "needs --reason",
        ),
        _NO_VERIFY,
        _PROJECT,
        _TEXT_OR_JSON,
    ),
    _command(
        "rollback",
        "Return an environment to the deployment before (the code; `registry rollback` is for a model)",
        "A new commit with the files of the bundle before; repeated, it goes back step by step. Models and their "
        "champions stay what they are. Ends with 4 when the environment's Airflow does not run it in time.",
        _environment(True),
        Arg(("--reason",), metavar="TEXT", required=True, help="Why; kept in the history"),
        Arg(
            ("--expected",),
            metavar="SHA",
            default=None,
            help="The bundle or commit that is to be left, 6 digits or more; nothing is changed when it is another "
            "one, or was left already: a repeated command goes back once (default: what is deployed)",
        ),
        _NO_VERIFY,
        _PROJECT,
        _TEXT_OR_JSON,
    ),
    _command(
        "status",
        "What is deployed to each environment, and what runs there; or the windows of one pipeline",
        "Which bundle, from which commit, by whom, since when; whether the Airflow there runs it; what was before. "
        "Ends with 1 when an environment does not run what is deployed, or its branch was changed by hand. With "
        "PIPELINE, one table from the store: windows, drift, champions, what triggered a retrain and what the gates "
        "said.",
        Arg(("pipeline",), metavar="PIPELINE", nargs="?", default=None, help="A pipeline, instead of the project"),
        _environment(False),
        _PROJECT,
        _TEXT_OR_JSON,
    ),
)
