"""``python -m airflow_mlops.demo``: what ``make demo`` runs."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from airflow_mlops.demo import fleet, level_2, story
from airflow_mlops.demo.airflow import LiveAirflow, port_is_free
from airflow_mlops.demo.data import prepare_breast_cancer, prepare_flights
from airflow_mlops.demo.two_airflows import TwoAirflows
from airflow_mlops.exceptions import ConfigError, MLOpsError

MARK = "made-by-airflow-mlops-demo"
REPOSITORY = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code: 0 when every run ended as it should."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    began, lock = time.monotonic(), threading.Lock()

    def say(text: str) -> None:
        with lock:
            print(f"[{time.monotonic() - began:4.0f} s] {text}", flush=True)

    if options.fleet and options.level == 2:
        print("The fleet's demo is of level 1: FLEET=1 without LEVEL=2", file=sys.stderr)
        return 2
    try:
        return _demo(options, say)
    except MLOpsError as e:
        print(f"\nThe demo failed: {e}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; Airflow has ended.", file=sys.stderr, flush=True)
        return 130


def _demo(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    for port in range(options.port, options.port + options.level):
        if not port_is_free(port):
            raise ConfigError(f"port {port} is in use", hint=f"end what listens there, or: make demo PORT={port + 1}")
    home: Path = options.home.resolve()
    fresh_home(home, say)
    say(f"preparing data in {home / 'data'}")
    if options.level != 2 and not options.fleet:
        prepare_breast_cancer(home / "data", say)
    prepare_flights(home / "data", _months(options), say)
    if options.level == 2:
        return _level_2(options, home, say)
    say("starting Airflow")
    env = {
        "AIRFLOW__MLOPS__STORE": (home / "store").as_uri(),
        "AIRFLOW__MLOPS__DATA_ROOT": str(home / "data"),
        # The width of tables that commands print into our pipe.
        "COLUMNS": str(shutil.get_terminal_size((150, 24)).columns),
    }
    with LiveAirflow(home / "airflow", _dags(options), port=options.port, env=env, say=say) as live:
        if options.fleet:
            print("\n".join(fleet.told(live, home / "data", _months(options), say)), flush=True)
        else:
            print(report(*story.tell(live, _months(options), say)), flush=True)
        say("every run ended as it should")
        if options.ui:
            _leave_open(live, *((fleet.look_at(live), fleet.PIPELINE) if options.fleet else ()))
    return 0


def _months(options: argparse.Namespace) -> int:
    """How many months of 2013 this demo replays."""
    if options.level == 2:
        return level_2.LAST_MONTH
    return int(options.months or (fleet.MONTHS if options.fleet else 12))


def _dags(options: argparse.Namespace) -> Path:
    """The folder of DAG files: the fleet has one of its own."""
    return Path(options.dags or (REPOSITORY / "examples" / "flight_fleet" if options.fleet else REPOSITORY / "dags"))


def _level_2(options: argparse.Namespace, home: Path, say: Callable[[str], None]) -> int:
    """Two Airflows: the port that was asked for is staging's, which delivers; the one above it production's."""
    columns = {"COLUMNS": str(shutil.get_terminal_size((150, 24)).columns)}
    two = TwoAirflows(
        home / "level-2",
        level_2.PROJECT,
        home / "data",
        ports=(options.port, options.port + 1),
        env={"staging": columns | {"MLOPS_TEAM": "ops"}, "production": columns},
        say=say,
    )
    with level_2.told(two, _dags(options), say) as (delivered, table):
        width = max(len(each.what) for each in delivered)
        print(f"\n{two.delivery}", flush=True)
        for each in delivered:
            print(f"  {each.commit[:12]}  {each.what:{width}}  {each.outcome}", flush=True)
        print("\n".join(table), flush=True)
        say("every delivery ended as it should")
        if options.ui:
            print(f"\nProduction:    {two.production.url}   login admin, password admin", flush=True)
            _leave_open(two.staging)
    return 0


def _leave_open(live: LiveAirflow, look: str = "", pipeline: str = "flight_delays") -> None:
    airflow = f". {os.path.relpath(live.home / 'env')} && {os.path.relpath(sys.executable)} -m airflow"
    print(f"\nAirflow's UI:  {live.url}   login admin, password admin{look}", flush=True)
    command = "fleet status" if look else "status"
    print(f"Commands:      {airflow} mlops {command} {pipeline}\nCtrl-C ends it.", flush=True)
    try:
        while True:
            time.sleep(2)
            live.check_alive()
    except KeyboardInterrupt:
        print("\nEnding Airflow …", flush=True)


def report(steps: list[story.Step], table: list[str]) -> str:
    """The closing table: level 0's steps, then level 1's months."""
    width = max(len(step.what) for step in steps)
    zero = [f"  {step.what:{width}}  {step.state}  {step.detail}" for step in steps]
    return "\n".join(["", "breast_cancer (level 0)", *zero, "", "flight_delays (level 1)", *table, ""])


def fresh_home(home: Path, say: Callable[[str], None]) -> None:
    """Make ``home`` an empty folder; what an earlier demo left there is deleted, anything else is not.

    :raises ConfigError: ``home`` holds something that no demo made.
    """
    if home.exists() and any(home.iterdir()):
        if not (home / MARK).is_file():
            raise ConfigError(f"{home} is not empty and was not made by the demo", hint="choose another --home")
        say(f"deleting the earlier demo in {home}: this one starts from a fresh store")
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / MARK).touch()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_mlops.demo", description="Pipelines in a real Airflow, on real data, to the end."
    )
    parser.add_argument(
        "--level", type=int, choices=(1, 2), default=1, help="2: commits on their way to production, in two Airflows"
    )
    parser.add_argument(
        "--fleet", action="store_true", help="one pipeline with a model for each destination and carrier instead"
    )
    parser.add_argument("--port", type=int, default=8080, help="of Airflow's UI (default: 8080)")
    parser.add_argument("--no-ui", dest="ui", action="store_false", help="stop when the runs have ended")
    parser.add_argument("--home", type=Path, default=Path(".demo"), help="folder for data, store and Airflow")
    parser.add_argument(
        "--months", type=int, choices=range(1, 13), metavar="1…12", help="of 2013 to replay (default: 12; a fleet: 7)"
    )
    parser.add_argument(
        "--dags", type=Path, help="folder of DAG files (default: dags, of a fleet examples/flight_fleet)"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
