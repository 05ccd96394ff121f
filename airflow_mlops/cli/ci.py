"""``airflow mlops ci``: what a change does to a project's pipelines, before it is merged."""

from __future__ import annotations

import json
import logging
import sys
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path

from airflow_mlops.cli.columns import LocalColumns
from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.config.harmless import harmless
from airflow_mlops.config.writing import write_whole
from airflow_mlops.delivery.record import Check, count


@clear_errors
def ci(args: Namespace) -> None:
    """Run the stages; ends with the code of the one that failed, or with 1 where there is nothing to check."""
    from airflow_mlops.delivery import report
    from airflow_mlops.delivery.record import Asked, Limits
    from airflow_mlops.delivery.stages import check
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.hooks.options import option, settings

    folder = Path(args.folder)
    logging.getLogger().setLevel(logging.WARNING)
    with redirect_stdout(sys.stderr):
        hook = MLOpsHook()
        beside = folder / "data"
        root = args.data_root or (str(beside) if beside.is_dir() else hook.data_root)
        root = root if "://" in root else str(Path(root).absolute())
        asked = Asked(
            folder=folder,
            settings=settings(args.environment),
            data_root=root,
            since=args.changed_since,
            sample=args.sample,
            start=args.start,
            end=args.end,
            trusted_types=hook.trusted_types,
            signer=hook.signer(),
            withheld_conn_ids=tuple(filter(None, (option("signing_key_conn_id"),))),
            columns=LocalColumns(root),
            limits=Limits(args.test_timeout, args.train_timeout),
        )
        found = check(asked, lambda text: print(harmless(text), file=sys.stderr, flush=True))
        if args.report:
            write_whole(Path(args.report), report.markdown(found).encode())
        if args.junit:
            write_whole(Path(args.junit), report.junit(found.stages).encode())
        if args.bundle and found.bundle is not None and found.failed is None:
            write_whole(Path(args.bundle), found.bundle)
    if args.output == "json":
        print(json.dumps(report.as_json(found), indent=2, ensure_ascii=False))
    else:
        _print(found, args)
    sys.stdout.flush()
    if found.exit_code:
        raise SystemExit(found.exit_code)


def _print(found: Check, args: Namespace) -> None:
    state = f", and {count(len(found.uncommitted), 'uncommitted change')}" if found.uncommitted else ""
    print(harmless(f"{found.project} at {found.repository.head[:12]}{state}"))
    if found.base:
        print(f"compared with {found.base[:12]}")
    for change in found.changes if found.base else ():
        print(harmless(f"  {change.name}: {change.what}"))
    for stage in found.stages:
        first, *others = stage.told or ("",)
        print(harmless(f"{stage.name:<9} {stage.status:<8} {first}"))
        for line in others:
            print(harmless(f"{'':<18} {line}"))
    for trial in found.trials:
        for metric in (trial.comparison or {}).get("metrics", ()):
            print(
                harmless(
                    f"{trial.change.name}: {metric['name']} {metric['before']:.4f} → {metric['after']:.4f}: "
                    f"{metric['verdict']}"
                )
            )
        if trial.not_compared:
            print(harmless(f"{trial.change.name}: not compared with the pipeline before: {trial.not_compared}"))
    if found.failed is None and found.bundle is not None:
        print(f"bundle {found.digest}" + (f" in {args.bundle}" if args.bundle else "; --bundle FILE keeps it"))
    else:
        print(f"{found.failed.name if found.failed else 'nothing'} failed: exit code {found.exit_code}")
